"""Data sets and loaders; importing this registers the built-in data sets by name."""

from .builtin import datasets_root, register_builtin

register_builtin(datasets_root())
