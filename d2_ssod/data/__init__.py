"""Data sets and loaders; importing this registers the built-in data sets by name."""

from .builtin import datasets_root, register_builtin
from .registry import register_from_config

__all__ = ["datasets_root", "register_builtin", "register_from_config"]

register_builtin(datasets_root())
