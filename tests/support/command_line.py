"""The command line in this process: what a command that fails says."""

from __future__ import annotations

import pytest

from sdfgan.cli import main


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command that fails with status 2."""
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.endswith("\n") and said.err.count("\n") == 1
    assert not set("╭│╰─") & set(said.err)
    return said.err.strip()
