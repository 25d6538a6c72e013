"""The pages of the documentation that are made from the code: every public name, every flag of every command.

`tools/build_docs.py` writes them where Sphinx finds them; tests/test_docs.py reads them here, without Sphinx.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Iterator
from types import ModuleType

from sdfgan.cli import COMMANDS
from sdfgan.cli.help import command_help
from sdfgan.compat.flags import OLD_FLAGS

# Packages and modules for users of the library, in the order in which data flows.
API = (
    "cameras",
    "fields",
    "raycast",
    "volume",
    "meshes",
    "sdf",
    "gan",
    "nerf",
    "inverse",
    "data",
    "images",
    "metrics",
    "conditions",
    "ops",
    "ops.reference",
    "compat",
    "errors",
)
GROUPS = {
    "Train": ("train-gan", "train-sdf", "train-nerf", "fit-image"),
    "Use a result": ("view", "render", "interpolate", "extract-mesh", "invert", "report", "evaluate"),
    "Data sets": ("dataset check", "dataset preview", "dataset convert", "dataset render"),
}
_REST = "Installation and older projects"  # every command without a group
_COLUMNS = "88"  # of the help of a command


def public_names(module: ModuleType) -> list[str]:
    """`__all__`, or what a module without one defines itself."""
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return list(getattr(module, "__all__", [name for name in own if not name.startswith("_")]))


def api_pages() -> dict[str, str]:
    """Each page by its path. A name that two packages export is described by the first, and linked by the second."""
    described: dict[int, str] = {}
    pages = {}
    for name in API:
        module = importlib.import_module(f"sdfgan.{name}")
        pages[f"api/{name}.md"] = "\n".join(_api_page(module, described))
    listed = "\n".join(f"{name} <api/{name}>" for name in API)
    rows = [
        f"| [`sdfgan.{name}`](api/{name}.md) | {_first_sentence(importlib.import_module(f'sdfgan.{name}'))} |"
        for name in API
    ]
    table = "\n".join(["| | |", "|---|---|", *rows])
    pages["api.md"] = "\n".join(
        [
            "# Python API\n",
            "Every public name, from the docstrings. After `import sdfgan`, packages load at first use, except "
            "`sdfgan.errors` and `sdfgan.ops.reference`, which are imported by their names.\n",
            f"{table}\n",
            "`sdfgan.__version__` is the version.\n",
            _directive("autofunction", "sdfgan.build_info"),
            f"```{{toctree}}\n:hidden:\n\n{listed}\n```\n",
        ]
    )
    return pages


def _api_page(module: ModuleType, described: dict[int, str]) -> Iterator[str]:
    yield f"# `{module.__name__}`\n"
    yield _directive("automodule", module.__name__, "no-members")
    homes: dict[str, list[str]] = {}
    elsewhere = []
    for name in public_names(module):
        value, path = getattr(module, name), f"{module.__name__}.{name}"
        first = described.setdefault(id(value), path) if _has_docstring(value) else path
        if first != path:
            elsewhere.append((path, first))
        else:
            homes.setdefault(value.__module__ if _has_docstring(value) else "", []).append(path)
    for home, paths in sorted(homes.items(), key=lambda one: (one[0] not in ("", module.__name__), one[0])):
        if home not in ("", module.__name__):
            yield f"## {home.rpartition('.')[2].strip('_').replace('_', ' ')}\n"
            yield _directive("automodule", home, "no-members", "no-index")
        for path in paths:
            value = getattr(module, path.rpartition(".")[2])
            kind = "autoclass" if inspect.isclass(value) else "autofunction" if _has_docstring(value) else "autodata"
            yield _directive(kind, path, *(["no-value"] if isinstance(value, dict) else []))
    if elsewhere:
        yield "## Described elsewhere\n"
        yield from (f"- `{path}`: {{py:obj}}`{first}`" for path, first in elsewhere)


def _has_docstring(value: object) -> bool:
    return inspect.isclass(value) or inspect.isroutine(value)


def _directive(kind: str, target: str, *options: str) -> str:
    return "\n".join(["```{eval-rst}", f".. {kind}:: {target}", *(f"   :{one}:" for one in options), "```\n"])


def _first_sentence(module: ModuleType) -> str:
    return re.split(r"(?<=\.)\s", " ".join((module.__doc__ or "").split()))[0]


def command_groups() -> dict[str, list[str]]:
    """Every command once, by topic."""
    grouped = {name for names in GROUPS.values() for name in names}
    rest = [name for name in COMMANDS if name not in grouped]
    return {**{topic: list(names) for topic, names in GROUPS.items()}, _REST: rest}


def command_pages() -> dict[str, str]:
    """What `sdfgan COMMAND --help-all` prints, each topic under a heading."""
    pages, lines = {}, ["# Commands\n", "What `sdfgan COMMAND --help-all` prints, for each command.\n"]
    for topic, names in command_groups().items():
        lines += [f"## {topic}\n", "| command | what it does |", "|---|---|"]
        for name in names:
            file = f"commands/{name.replace(' ', '-')}.md"
            lines.append(f"| [`sdfgan {name}`]({file}) | {COMMANDS[name].summary} |")
            pages[file] = _command_page(name)
        lines += ["", "```{toctree}", ":hidden:", ""]
        lines += [f"{name} <commands/{name.replace(' ', '-')}>" for name in names] + ["```", ""]
    pages["older-flags.md"] = older_flags_page()
    pages["commands.md"] = "\n".join(lines)
    return pages


def older_flags_page() -> str:
    """Every flag of an older project, and what it is today."""
    lines = [
        "# Flags of older projects\n",
        "These flags are accepted, with hyphens, underscores or capitals between words, and a line says what they are "
        "now. See [coming from other projects](../docs/older-projects.md).\n",
    ]
    for command, flags in OLD_FLAGS.items():
        lines += [f"## {command}\n", "| flag | |", "|---|---|"]
        for flag, old in flags.items():
            note = re.sub(r"(--[a-z-]+[a-z])", r"`\1`", old.note)
            lines.append(f"| `{flag}` | {note} |")
        lines.append("")
    return "\n".join(lines)


def _command_page(name: str) -> str:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _COLUMNS
    try:
        usage, *rest = command_help(name, everything=True).split("\n")
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    lines, block = [f"# sdfgan {name}\n", "```text", usage.removeprefix("usage: "), "```", ""], False
    for line in rest:
        heading = re.fullmatch(r"([A-Z]?[\w ,]+):", line)
        if block and (heading or not line):
            lines += ["```", ""]
            block = False
        if heading:
            lines += [f"## {line[:1].upper()}{line[1:-1]}", ""]
        elif line.startswith("  ") and not block:
            lines += ["```bash" if lines[-2:-1] == ["## Examples"] else "```text", line.removeprefix("  ")]
            block = True
        else:
            lines.append(line.removeprefix("  ") if block else line)
    return "\n".join([*lines, *(["```"] if block else []), ""])
