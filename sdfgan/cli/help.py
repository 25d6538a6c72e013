"""What --help and --help-all say: the flags of a command by topic, with their ranges and defaults.

tyro's own help has one box for all flags, the line breaks of the source, and None for what a device decides.
"""

from __future__ import annotations

import ast
import functools
import inspect
import shutil
import sys
import textwrap
import types
import typing
from itertools import pairwise
from pathlib import Path
from typing import Any

import tyro

from sdfgan.cli.commands import COMMANDS
from sdfgan.cli.parse import is_positional
from sdfgan.training.config import Essential, Metavar, Setting, settings_of

_COLUMN = 28  # where text begins


def overview(prefix: str = "") -> str:
    """All commands, or those that begin with a word."""
    from sdfgan import __doc__ as about

    width = max(map(len, COMMANDS))
    commands = [f"  {name:{width}}  {one.summary}" for name, one in COMMANDS.items() if name.startswith(prefix)]
    head = "" if prefix else f"{str(about).splitlines()[0]}\n\n"
    usage = f"usage: sdfgan {prefix}{'ACTION' if prefix else 'COMMAND'} [OPTIONS]"
    return "\n".join([head + usage, "", *commands, "", "sdfgan COMMAND --help shows its options and examples."])


def command_help(name: str, everything: bool) -> str:
    """Usage, flags by topic and examples of a command; of many flags only the essential ones unless `everything`."""
    command = COMMANDS[name]
    config_type = command.load_config()
    settings = {k: one for k, one in settings_of(config_type).items() if tyro.conf.Suppress not in one.marks}
    places = [one for one in settings.values() if is_positional(one)]
    flags = [one for one in settings.values() if not is_positional(one)]
    essential = [one for one in flags if Essential in one.marks]
    shown = flags if everything or not essential else essential
    usage = " ".join([_metavar(one) if _is_required(one) else f"[{_metavar(one)}]" for one in places])
    lines = [f"usage: sdfgan {name} {usage}{' ' if usage else ''}[OPTIONS]", ""]
    for paragraph in (inspect.getdoc(config_type) or "").split("\n\n"):
        lines += [*_wrapped(paragraph, 0), ""]
    lines = lines[: None if places else -1]
    documents, decided = _documents(config_type), _decided(config_type)
    for one in places:
        lines += _entry(_metavar(one), documents[one.field.name])
    section = None
    for one in shown:
        if one.section != section or section is None:
            section = one.section
            lines += ["", f"{section or 'Options'}:"]
        text = documents[one.field.name]
        if remarks := _remarks(one, decided):
            text += f" [{remarks}]"
        lines += _entry(_invocation(one), text)
    if len(shown) < len(flags):
        lines += ["", f"{len(flags) - len(shown)} more options: sdfgan {name} --help-all"]
    lines += ["", "examples:"]
    for arguments, meaning in command.examples:
        lines += [f"  # {meaning}", f"  sdfgan {name} {arguments}".rstrip()]
    return "\n".join(lines)


def _wrapped(text: str, indent: int) -> list[str]:
    width = min(shutil.get_terminal_size().columns, 120) - indent
    return textwrap.wrap(" ".join(text.split()), max(width, 40), break_on_hyphens=False)


def _entry(left: str, text: str) -> list[str]:
    """A flag, and its text beside it or, where it is long, below."""
    lines = [" " * _COLUMN + line for line in _wrapped(text, _COLUMN)]
    if len(left) + 4 > _COLUMN:
        return [f"  {left}", *lines]
    return [f"  {left}".ljust(_COLUMN) + lines[0].lstrip(), *lines[1:]]


def _metavar(setting: Setting) -> str:
    named = [mark.metavar for mark in setting.marks if getattr(mark, "metavar", None)]
    return str(named[0]) if named else setting.field.name.upper()


def _is_required(setting: Setting) -> bool:
    return setting.field.default is setting.field.default_factory  # both are missing


def _invocation(setting: Setting) -> str:
    if setting.hint is bool:
        return f"{setting.flag}, --no-{setting.flag[2:]}" if setting.field.default else setting.flag
    said = [mark.text for mark in setting.marks if isinstance(mark, Metavar)]
    return f"{setting.flag} {said[0] if said else _values(setting.hint)}"


def _values(hint: Any) -> str:
    """What stands behind a flag."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return "|".join(_values(one) for one in arguments if one is not types.NoneType)
    if origin is typing.Literal:
        return "|".join(map(str, arguments))
    if origin is tuple:
        return " ".join("..." if one is ... else _values(one) for one in arguments)
    return {bool: "True|False", Path: "PATH", str: "TEXT"}.get(hint, hint.__name__.upper())


def _remarks(setting: Setting, decided: tuple[dict[str, Any], dict[str, Any]]) -> str:
    """Range and default."""
    default = setting.field.default
    limits = ", ".join(rule.short for rule in setting.rules if rule.short)
    if float not in (setting.hint, *typing.get_args(setting.hint)):
        limits = limits.replace(">= 0, <=", "0 to").replace("> 0, <=", "1 to")
    remarks = [limits] if limits else []
    on_cpu, on_gpu = (_shown(one.get(setting.field.name)) for one in decided)
    if default is None and on_cpu:
        remarks.append(f"default: auto ({on_cpu if on_cpu == on_gpu else f'{on_cpu} on a CPU, {on_gpu} on a GPU'})")
    elif _shown(default) and default is not False:
        remarks.append(f"default: {_shown(default)}")
    return "; ".join(remarks)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "" if value is None else "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _decided(config_type: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a CPU and a GPU decide where nothing is given."""
    if not hasattr(config_type, "defaults"):
        return {}, {}
    return config_type().defaults(True), config_type().defaults(False)


def _documents(config_type: type) -> dict[str, str]:
    """The text below each field."""
    found = {}
    for base in reversed(config_type.__mro__):
        if base is object:
            continue
        classes = {node.name: node for node in _module(base.__module__).body if isinstance(node, ast.ClassDef)}
        body = classes[base.__name__].body
        for node, below in pairwise(body):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(below, ast.Expr):
                text = ast.literal_eval(below.value)
                found[node.target.id] = " ".join(text.split())
    return found


@functools.cache
def _module(name: str) -> ast.Module:
    return ast.parse(inspect.getsource(sys.modules[name]))
