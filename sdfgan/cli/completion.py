"""What completes commands, flags and values in a shell: tyro's script for all commands at once."""

from __future__ import annotations

import io
from contextlib import redirect_stdout, suppress
from typing import Annotated, Any, Union

import tyro

from sdfgan.cli.commands import COMMANDS
from sdfgan.errors import UserError

SHELLS = ("bash", "zsh")


def completion(shell: str) -> str:
    """The script for a shell. UserError for another one."""
    if shell not in SHELLS:
        raise UserError(f"--print-completion must be {' or '.join(SHELLS)}, got {shell!r}")
    actions: dict[str, dict[str, Any]] = {}
    for name, command in COMMANDS.items():
        first, _, action = name.partition(" ")
        actions.setdefault(first, {})[action] = command.load_config()
    commands = {first: below.get("") or _one_of(below) for first, below in actions.items()}
    script = io.StringIO()
    with redirect_stdout(script), suppress(SystemExit):
        tyro.cli(_one_of(commands), prog="sdfgan", args=["--tyro-print-completion", shell])
    return script.getvalue()


def _one_of(commands: dict[str, Any]) -> Any:
    """The type of which tyro makes sub-commands."""
    named = (Annotated[kind, tyro.conf.subcommand(name, prefix_name=False)] for name, kind in commands.items())
    return Union[tuple(named)]  # noqa: UP007  of a tuple
