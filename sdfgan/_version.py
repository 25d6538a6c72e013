"""The version, once: pyproject.toml reads it from here, and a tree that is not installed knows it too."""

VERSION = "0.1.0"
