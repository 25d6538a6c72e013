"""Imports point down: packages know those below them and no others, and no two files know each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import sdfgan

PACKAGE = Path(sdfgan.__file__).parent
# from the bottom to the top; what stands in one line must not know each other
LAYERS = (
    "errors _C _version _lazy",
    "_build checks",
    "ops",
    "cameras conditions",
    "training",
    "fields",
    "rendering images metrics",
    "pictures",
    "raycast volume",
    "meshes",
    "data lpips",
    "inception selftest",
    "sdf nerf gan inverse",
    "compat",
    "viewer",
    "cli",
    "__main__",
)
LAYER_OF = {name: i for i, names in enumerate(LAYERS) for name in names.split()}


def modules() -> dict[str, Path]:
    """Every module of the package by its name without `sdfgan.`; of the package itself nothing."""
    paths = {path.relative_to(PACKAGE).with_suffix(""): path for path in PACKAGE.rglob("*.py")}
    return {".".join(name.parts).removesuffix(".__init__"): path for name, path in paths.items()}


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """The modules that a module imports, anywhere, also for type checkers."""
    path = MODULES[name]
    package = ["sdfgan", *name.split(".")][: None if path.name == "__init__.py" else -1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            start = ".".join(part for part in (base, node.module) if part)
            found = [f"{start}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in found:
            parts = target.split(".")[1:]
            if target.startswith("sdfgan.") and parts[0] not in ("__version__", "build_info", "__doc__"):
                whole, above = ".".join(parts), ".".join(parts[:-1])
                yield whole if whole in MODULES or not above else above


def home(name: str) -> str:
    """The line's word that a module belongs to: its own name, or that of its package."""
    return name if name in LAYER_OF else name.split(".")[0]


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"__init__"}))
def test_a_module_imports_only_what_is_below(name: str) -> None:
    own = home(name)
    for target in imports(name):
        other = home(target)
        assert other == own or LAYER_OF[other] < LAYER_OF[own], f"{name} imports {target}"


def test_no_two_modules_import_each_other() -> None:
    graph = {name: {target for target in imports(name) if target != name} for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_every_public_subpackage_loads_at_first_use() -> None:
    public = {name.split(".")[0] for name in MODULES if not name.startswith("_")}
    hidden = {"cli", "errors", "inception", "lpips", "checks"}
    assert set(sdfgan._SUBPACKAGES) == public - hidden
    for name in sdfgan._SUBPACKAGES:
        assert getattr(sdfgan, name).__name__ == f"sdfgan.{name}" and name in dir(sdfgan)
