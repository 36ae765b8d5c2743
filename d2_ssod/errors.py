"""The one exception that a user's input can cause, and how its message is worded."""

import difflib
import re
from collections.abc import Iterable

_TRACEBACK_OF_WORKER = re.compile(r"\ACaught .* in DataLoader worker .*ConfigError: ", re.DOTALL)
_LONGEST_WORD, _LONGEST_LINE = 300, 1500  # characters; a file may have a word of millions


class ConfigError(ValueError):
    """A config key, data set or file that cannot be used.

    The message is one line that names the key or file, what was found there, and what to do; the
    command line prints it and stops before training. What is longer than one can read is shortened;
    line breaks and other characters without a picture, of values that it quotes, are escaped.
    """

    def __init__(self, message: str) -> None:
        # PyTorch's loaders hand on what a worker raises as a text that begins with its traceback.
        message = _TRACEBACK_OF_WORKER.sub("", message).rstrip("\n")
        super().__init__(shortened(escaped(message)))


def described(error: OSError) -> str:
    """Name the file and say what the system says of it."""
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror}"


def one_line(error: object) -> str:
    """Say what an error says in one line, whatever breaks its text has."""
    return " ".join(str(error).split())


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that an unknown one was probably meant to be, in whatever case."""
    by_lower = {other.lower(): other for other in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def correct_or_remove(near: str | None) -> str:
    """Say what to do with an unknown name, given the one that it was probably meant to be."""
    return f"correct it, such as to {near}, or remove it" if near else "correct or remove it"


def escaped(text: str) -> str:
    """Write line breaks, terminal codes, lone surrogates and the like as Python's ``repr`` does."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shortened(text: str) -> str:
    """Put ``...`` in place of the middle of long words, and of a long text."""
    return _cut(" ".join(_cut(word, _LONGEST_WORD) for word in text.split(" ")), _LONGEST_LINE)


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    end = longest // 3
    return f"{text[: longest - end - 3]}...{text[-end:]}"
