"""From arguments to a configuration: former names, unknown flags with what may have been meant, then tyro."""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr
from itertools import pairwise
from typing import Any

import tyro

from sdfgan.errors import UserError
from sdfgan.training.config import Config, FormerValue, Setting, flag_of, settings_of


def parse(program: str, config_type: type, arguments: Sequence[str]) -> Any:
    """The configuration that the arguments give. UserError for bad ones."""
    said = io.StringIO()
    try:
        given = [_with_current_name(config_type, argument) for argument in arguments]
        _refuse_former_values(config_type, given)
    except UserError as error:
        raise UserError(f"{error} (see {program} --help)") from None
    try:
        with redirect_stderr(said):
            config: Any = tyro.cli(config_type, prog=program, args=given)
    except SystemExit:
        raise UserError(f"{_first_section(said.getvalue())} (see {program} --help)") from None
    flags = {argument.partition("=")[0] for argument in given}
    explicit = [name for name in settings_of(config_type) if flags & {flag_of(name), flag_of(f"no_{name}")}]
    return config.with_explicit(explicit) if isinstance(config, Config) else config


def is_positional(setting: Setting) -> bool:
    """Whether it is given by its place."""
    return tyro.conf.Positional in setting.marks


def closest(given: str, known: Iterable[str]) -> str:
    """'; did you mean ...?', where something known is like it."""
    known = sorted(known)
    longer = [one for one in known if len(given) > 3 and one.startswith(given)]
    found = longer or difflib.get_close_matches(given, known, 1)
    return f"; did you mean {found[0]}?" if found else ""


def _with_current_name(config_type: type, argument: str) -> str:
    """The argument with the present name of its flag. UserError for an unknown flag."""
    if not argument:
        raise UserError("an argument is empty, as of a variable that is not set")
    if not re.match(r"--|-[A-Za-z]", argument) or re.fullmatch(r"-(inf|nan|infinity)", argument, re.IGNORECASE):
        return argument
    given, equals, value = argument.partition("=")
    names = {}
    for name, setting in settings_of(config_type).items():
        if not is_positional(setting) and tyro.conf.Suppress not in setting.marks:
            for one in (name, *setting.formerly):
                names[flag_of(one)] = flag_of(name)
                if setting.hint is bool:
                    names[flag_of(f"no_{one}")] = flag_of(f"no_{name}")
    flag = given.replace("_", "-")
    if equals and not value:
        raise UserError(f"{given}: is given without a value")
    if flag in names:
        return names[flag] + equals + value
    by_place = [name for name, setting in settings_of(config_type).items() if is_positional(setting)]
    if flag[2:].replace("-", "_") in by_place:
        raise UserError(f"unknown flag {given}: {flag[2:].upper()} is given without a flag")
    former = next((current for one, current in names.items() if one != current and one.startswith(flag)), flag)
    raise UserError(f"unknown flag {given}{closest(former, set(names.values()))}")


def _refuse_former_values(config_type: type, given: Sequence[str]) -> None:
    """Raises UserError for a value that a flag had and has no more."""
    pairs = {*pairwise(given), *((flag, value) for flag, _, value in (one.partition("=") for one in given))}
    for setting in settings_of(config_type).values():
        for mark in setting.marks:
            if isinstance(mark, FormerValue) and (setting.flag, mark.value) in pairs:
                raise UserError(f"{setting.flag} {mark.value}: is given as {mark.instead}")


def _first_section(box: str) -> str:
    """What a message of tyro's says, in one line: its text from the title to the first rule or blank line."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", box).strip().splitlines()[1:]  # without colours and title
    said: list[str] = []
    for line in (line.strip(" │|") for line in lines):
        if line.strip("─-╭╮╰╯"):
            said.append(line)
        elif said:
            break
    text = " ".join(said)
    if unfit := re.fullmatch(
        r"Error parsing (--\S+): no type matching (.*) could be instantiated from \[(.*)\]\.?", text
    ):
        flag, wanted, given = unfit.groups()
        return f"{flag} must be {re.sub(r'[{}]|None}[|]', '', wanted)}, got {given}"
    return text or "bad arguments"
