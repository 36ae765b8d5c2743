"""What YAML files say that their readers do not see."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

import yaml

from .errors import ConfigError

_BASE = "_BASE_"  # names files that a config builds on
_MERGE = "tag:yaml.org,2002:merge"  # of the key <<, whose mappings are joined


class AsWritten(yaml.SafeLoader):
    """Reads numbers, dates and words such as ``on`` and ``null`` as the texts that stand there."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag == _MERGE]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def check_repeated_keys(path: str | os.PathLike) -> None:
    """Refuse a file, or one that it builds on, with a key that stands twice in a mapping.

    Readers take the last one, and all that stands below the others is lost.

    Args:
        path: the file; one that cannot be read or is no YAML is left to its reader.

    Raises:
        ConfigError: naming the key and both lines.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            root = yaml.compose(file, Loader=yaml.SafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return
    for mapping in _mappings(root, set()):
        first: dict[str, yaml.Node] = {}
        for key, value in mapping.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if first.setdefault(key.value, key) is not key:
                lines = [node.start_mark.line + 1 for node in (first[key.value], key)]
                raise ConfigError(
                    f"{path}: {key.value} stands twice, in lines {lines[0]} and {lines[1]}, "
                    "and what the first one says would be lost; join the two"
                )
            if mapping is root and key.value == _BASE:
                for base in value.value if isinstance(value.value, list) else [value]:
                    check_repeated_keys(
                        os.path.join(os.path.dirname(path), os.path.expanduser(str(base.value)))
                    )


def _mappings(node: yaml.Node | None, seen: set[int]) -> Iterator[yaml.MappingNode]:
    """Yield all mappings of a tree, each once, whatever aliases there are."""
    if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
        return
    seen.add(id(node))
    values = node.value
    if isinstance(node, yaml.MappingNode):
        yield node
        values = [value for _, value in node.value]
    for value in values:
        yield from _mappings(value, seen)
