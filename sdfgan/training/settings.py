"""What the values of configurations must be, whatever they mean: types by the hints of their dataclass, and sizes."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from pathlib import Path
from typing import Any

from sdfgan.errors import UserError

_MAX_FLOAT, _MAX_INT = 1e30, 2**63 - 1  # of what becomes a number of 32, or of 64, bits


def is_of_type(value: Any, hint: Any) -> bool:
    """Whether a JSON value fits the type hint of a setting."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return is_of_type(value, arguments[0])
    if origin is typing.Literal:
        return any(value == one and type(value) is type(one) for one in arguments)
    if origin in (typing.Union, types.UnionType):
        return any(is_of_type(value, one) for one in arguments)
    if origin is tuple:
        fits = isinstance(value, tuple) and len(value) == len(arguments)
        return fits and all(is_of_type(v, a) for v, a in zip(value, arguments, strict=True))
    if hint is float:
        return type(value) in (int, float)
    if hint is Path:
        return isinstance(value, str) and "\0" not in value
    return type(value) is hint


def type_name(hint: Any) -> str:
    """A type hint in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        return f"[{', '.join(map(type_name, arguments))}]"
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if one is types.NoneType else type_name(one) for one in arguments)
    return getattr(hint, "__name__", None) or str(hint)


def typed_values(cls: type, values: Any, source: Path, what: str) -> dict[str, Any]:
    """The settings of a dataclass from JSON, with their tuples and paths. Raises UserError, naming `source` and field.

    `what` says whose settings they are.
    """
    if not isinstance(values, dict):
        raise UserError(f"{source}: not {what}: expected an object, got {json.dumps(values)[:50]}")
    hints = typing.get_type_hints(cls, include_extras=False)
    known = {field.name: field for field in dataclasses.fields(cls)}
    result = {}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{source}: not {what} of this version: unknown field {name!r:.50}")
        value = tuple(value) if isinstance(value, list) else value
        if not is_of_type(value, hints[name]):
            raise UserError(f"{source}: not {what} of this version: {name} cannot be {json.dumps(value)[:50]}")
        result[name] = Path(value) if isinstance(value, str) and "Path" in str(hints[name]) else value
    return result


def check_sizes(config: Any) -> None:
    """Raises UserError for numbers that are not finite, or that no tensor holds."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            is_float, flag = isinstance(number, float), "--" + field.name.replace("_", "-")
            if is_float and not math.isfinite(number):
                raise UserError(f"{flag} must be finite, got {number}")
            largest = _MAX_FLOAT if is_float else _MAX_INT
            if isinstance(number, (int, float)) and abs(number) > largest:
                raise UserError(f"{flag} must be at most {largest:{'g' if is_float else ''}}, got {str(number)[:40]}")
