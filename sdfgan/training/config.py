"""What the settings of every command are made of: frozen dataclasses whose fields are its flags and its keys in JSON.

A field's annotation says what its values must be, and more where there is more to say:

    steps: Annotated[int, Positive] = 100
    learning_rate: Annotated[float, NotNegative, Formerly("lr")] = 1e-3

Nothing here imports torch, so that flags are understood, or refused, at once.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
import re
import shlex
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar

import tyro

from sdfgan.errors import UserError, require_module

_MAX_FLOAT, _MAX_INT = 1e30, 2**63 - 1  # of what becomes a number of 32, or of 64, bits
MIN_CELLS, MAX_CELLS = 4, 1024  # along a side of the grid of a mesh

# ------------------------------------------------------------------------------- what may stand in a field's annotation


class Rule(NamedTuple):
    """What a value, or a tuple of values, must be."""

    requirement: str  # after "must"
    holds: Callable[[Any], bool]
    short: str  # for the help


class Formerly(NamedTuple):
    """A name that a field had: it still works as a flag, in JSON and in curricula."""

    name: str


class FormerValue(NamedTuple):
    """A value that a flag had: it is refused, with what is given instead."""

    value: str
    instead: str


class Section(NamedTuple):
    """The heading in the help of this field and of those that follow it."""

    title: str


class Metavar(NamedTuple):
    """What the help calls the values."""

    text: str


class _Mark(NamedTuple):
    name: str


Essential = _Mark("essential")  # shown by --help; --help-all shows everything
# What compares false with NaN is left to the check for finite numbers.
Positive = Rule("be positive", lambda x: not x <= 0, "> 0")
NotNegative = Rule("not be negative", lambda x: not x < 0, ">= 0")
Cells = Rule(f"be 0 (no mesh) or at least {MIN_CELLS}", lambda n: n == 0 or n >= MIN_CELLS, "0, or >= 4")
TexelsOfASide = Rule("be 0 (none) or from 16 to 8192", lambda n: n == 0 or 16 <= n <= 8192, "0, or 16 to 8192")
Triangles = Rule("be 0 (all) or at least 4", lambda n: n == 0 or n >= 4, "0, or >= 4")
ShapesOrMeshes = Rule(
    "be a number from 0 to 1000000, or a folder of meshes", lambda x: isinstance(x, Path) or 0 <= x <= 10**6, ""
)
PowerOfTwo = Rule("be a power of two from 16", lambda n: n >= 16 and not n & (n - 1), "a power of two, >= 16")


def AtMost(high: float) -> Rule:
    """Rule: `high` or less."""
    return Rule(f"be at most {_figure(high)}", lambda x: not x > high, f"<= {_figure(high)}")


def Between(low: float, high: float, unit: str = "") -> Rule:
    """Rule: both ends belong to it."""
    low_figure, high_figure = _figure(low), _figure(high)
    requirement = f"be between {low_figure} and {high_figure}{unit}"
    return Rule(requirement, lambda x: low <= x <= high, f"{low_figure} to {high_figure}")


def Interval(low: int, high: int) -> Rule:
    """Rule: two numbers within these of which the first is not the larger one."""
    requirement = f"be LOW HIGH in degrees within {low} and {high}"
    return Rule(requirement, lambda x: low <= x[0] <= x[1] <= high, "LOW <= HIGH")


def _figure(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


_DEVICE = re.compile(r"auto|(cpu|cuda)(:\d{1,4})?")
Count = Annotated[int, Positive]
Natural = Annotated[int, NotNegative]
Scale = Annotated[float, Positive]
Weight = Annotated[float, NotNegative]
Frequency = Annotated[float, Positive, AtMost(1000)]  # of a sine layer
Share = Annotated[float, Between(0, 1)]
Pixels = Annotated[int, Between(1, 8192)]  # along a side of an image: more do not fit into memory
MeshCells = Annotated[int, Cells, AtMost(MAX_CELLS)]
Faces = Annotated[int, Triangles]
Texels = Annotated[int, TexelsOfASide]
Elevations = Annotated[tuple[float, float], Interval(-90, 90), Metavar("LOW HIGH")]
Azimuths = Annotated[tuple[float, float], Interval(-720, 720), Metavar("LOW HIGH")]
Colour = Annotated[
    tuple[float, float, float],
    Rule("be RGB in 0..1", lambda x: all(0 <= value <= 1 for value in x), "0 to 1"),
    Metavar("R G B"),
]
FieldOfView = Annotated[float, Between(1, 150, " degrees")]
NearFar = Annotated[
    tuple[float, float],
    Rule("be NEAR FAR with 0 <= NEAR < FAR", lambda x: 0 <= x[0] < x[1], "0 <= NEAR < FAR"),
    Metavar("NEAR FAR"),
]
Frames = Annotated[int, Positive, AtMost(10**6)]  # of a video
Device = Annotated[str, Rule("be auto, cpu, cuda or cuda:N", lambda x: _DEVICE.fullmatch(x) is not None, "")]
VideoFormat = Literal["mp4", "gif", "webp"]

# ----------------------------------------------------------------------------------------------------- what reads these


class Setting(NamedTuple):
    """A field of a configuration, and what its annotation says."""

    field: dataclasses.Field[Any]
    hint: Any  # without annotations
    rules: tuple[Rule, ...]
    formerly: tuple[str, ...]
    section: str
    marks: tuple[Any, ...]  # all that stands in the annotation

    @property
    def flag(self) -> str:
        """As it is given on a command line."""
        return flag_of(self.field.name)


def flag_of(name: str) -> str:
    """The flag of a field."""
    return "--" + name.replace("_", "-")


def chosen(config: object, names: str) -> dict[str, Any]:
    """Some of a configuration's fields as keyword arguments: what goes on to something under the same names."""
    return {name: getattr(config, name) for name in names.split()}


def _settings_of(cls: type) -> dict[str, Setting]:
    """The fields of a configuration in their order. A subclass that says nothing new of a field keeps what was said."""
    marks: dict[str, tuple[Any, ...]] = {}
    for base in reversed(cls.__mro__):
        hints = typing.get_type_hints(base, include_extras=True) if dataclasses.is_dataclass(base) else {}
        for name in set(inspect.get_annotations(base)) & set(hints):
            marks[name] = tuple(_marks(hints[name])) or marks.get(name, ())
    found, section = {}, ""
    plain = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        said = marks[field.name]
        section = next((mark.title for mark in said if isinstance(mark, Section)), section)
        rules = tuple(mark for mark in said if isinstance(mark, Rule))
        formerly = tuple(mark.name for mark in said if isinstance(mark, Formerly))
        found[field.name] = Setting(field, plain[field.name], rules, formerly, section, said)
    return found


settings_of: Callable[[type], dict[str, Setting]] = functools.cache(_settings_of)


def _marks(hint: Any) -> list[Any]:
    """What stands in the annotations of a hint, also within a union."""
    if typing.get_origin(hint) is Annotated:
        return [*_marks(hint.__origin__), *hint.__metadata__]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [mark for one in typing.get_args(hint) for mark in _marks(one)]
    return []


@dataclass(frozen=True)
class Config:
    """The base of all settings: what is out of range is refused when it is made. None is what is decided later."""

    explicit: ClassVar[frozenset[str]] = frozenset()  # an instance's own, of `with_explicit`, are lost with `replace`

    def __post_init__(self) -> None:
        for name, setting in settings_of(type(self)).items():
            value = getattr(self, name)
            if value is None:
                if not is_of_type(None, setting.hint):
                    raise UserError(f"{name} is missing")
                continue
            for rule in setting.rules:
                if not rule.holds(value):
                    raise UserError(f"{setting.flag} must {rule.requirement}, got {_shown(value)}")
            for number in value if isinstance(value, tuple) else (value,):
                _check_size(setting.flag, number)

    def with_explicit(self: C, names: Iterable[str]) -> C:
        """The same, of which these settings were given by name: where one has its default, `is_explicit` knows it."""
        config = dataclasses.replace(self)
        object.__setattr__(config, "explicit", frozenset(names))
        return config

    def is_explicit(self, name: str) -> bool:
        """Whether a setting was given: it differs from its default, or was given by name."""
        default = next(field.default for field in dataclasses.fields(self) if field.name == name)
        return getattr(self, name) != default or name in self.explicit

    def values(self) -> dict[str, Any]:
        """All settings by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def check(self) -> None:
        """Raises UserError for settings that do not go together."""

    def unused(self) -> set[str]:
        """The settings that others leave without a use: a command that gives them is refused."""
        return set()

    def kept(self) -> set[str]:
        """The settings that have their defaults although another setting has others for them."""
        return set()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in self.values().items()}


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(f"{one:g}" if isinstance(one, float) else str(one)[:40] for one in value)
    return repr(value) if isinstance(value, str) else str(value)[:40]


def _check_size(flag: str, number: Any) -> None:
    """Raises UserError for a number that is not finite, or that no tensor holds."""
    is_float = isinstance(number, float)
    if is_float and not math.isfinite(number):
        raise UserError(f"{flag} must be finite, got {number}")
    largest = _MAX_FLOAT if is_float else _MAX_INT
    if isinstance(number, (int, float)) and abs(number) > largest:
        raise UserError(f"{flag} must be at most {largest:{'g' if is_float else ''}}, got {str(number)[:40]}")


_OF_A_RUN_ALONE = ("output_dir", "resume", "dry_run")


def command_line(command: str, config: Config) -> str:
    """The command of these settings: what has been decided for a run, and what differs from the defaults.

    What the stages of a curriculum change is left to them. Paths are absolute: it can be given in any folder.
    """
    staged = {name for stage in getattr(config, "stages", ()) for name in stage.changes}
    left_out = {*_OF_A_RUN_ALONE, *staged, *config.unused()}
    words, flags = ["sdfgan", command], []
    for name in settings_of(type(config)):
        value, setting = getattr(config, name), _as_given(type(config), name)
        if name in left_out or tyro.conf.Suppress in setting.marks:
            continue
        if value == setting.field.default and name not in config.kept():
            continue
        if isinstance(value, Path) or f"{value}".endswith(".json"):  # the latter a curriculum
            value = Path(value).absolute()
        values = [f"{one}" for one in (value if isinstance(value, tuple) else (value,))]
        if tyro.conf.Positional in setting.marks:
            words += values
        elif setting.hint is bool:
            flags.append(setting.flag if value else flag_of(f"no_{name}"))
        else:
            flags += [setting.flag, *values]
    return shlex.join([*words, *flags])


def _as_given(cls: type[Config], name: str) -> Setting:
    """A field as the command takes it, whose value may be left to be decided: that of the base that has it first."""
    bases = (settings_of(base) for base in reversed(cls.__mro__) if dataclasses.is_dataclass(base))
    return next(settings[name] for settings in bases if name in settings)


def check_mesh_flags(config: Any, suffix: str = "glb") -> None:
    """Raises UserError where `faces` or a `texture_resolution` is asked for that the mesh of a configuration cannot
    have, or that needs libraries which are not installed."""
    for name, module in (("faces", "fast_simplification"), ("texture_resolution", "xatlas")):
        if getattr(config, name):
            if config.mesh_resolution == 0 or suffix == "mrc":
                raise UserError(f"{flag_of(name)}: is for a mesh, and none is to be made")
            require_module(module, flag_of(name), "meshes")
    if config.texture_resolution and suffix != "glb":
        raise UserError(f"--texture-resolution: only GLB files hold their texture, got {suffix}")


C = TypeVar("C", bound=Config)


def from_json(cls: type[C], values: Any, source: Path, what: str, **more: Any) -> C:
    """The settings of JSON, with `more` of them; `what` says whose they are. UserError, naming `source` and field."""
    typed = typed_values(cls, values, source, what)
    try:
        config = cls(**typed, **more)
        config.check()
    except UserError as error:
        raise UserError(f"{source}: not {what} of this version: {error}") from error
    return config


def typed_values(cls: type[Config], values: Any, source: Path, what: str) -> dict[str, Any]:
    """The settings of a configuration from JSON, by their present names, with their tuples and paths. UserError."""
    if not isinstance(values, dict):
        raise UserError(f"{source}: not {what}: expected an object, got {json.dumps(values)[:50]}")
    known = settings_of(cls)
    result = {}
    for given, value in values.items():
        name = current_name(cls, given)
        if name not in known or name in result:
            raise UserError(f"{source}: not {what} of this version: unknown field {given!r:.50}")
        value = tuple(value) if isinstance(value, list) else value
        hint = known[name].hint
        if value is None and not is_of_type(None, hint):
            raise UserError(f"{source}: not {what} of this version: {given} is missing")
        if not is_of_type(value, hint):
            raise UserError(f"{source}: not {what} of this version: {given} cannot be {json.dumps(value)[:50]}")
        result[name] = Path(value) if isinstance(value, str) and "Path" in str(hint) else value
    return result


def current_name(cls: type[Config], name: str) -> str:
    """The name of a field of which `name` may be a former one."""
    known = settings_of(cls)
    return name if name in known else next((new for new, one in known.items() if name in one.formerly), name)


def is_of_type(value: Any, hint: Any) -> bool:
    """Whether a JSON value fits the type hint of a setting."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
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
