"""sdfgan learns 3D shapes as neural signed-distance fields: from photographs, meshes or posed views.

Subpackages load at first use: `import sdfgan` is enough for `sdfgan.raycast.render(...)`.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import torch  # noqa: F401  first: the native module then shares torch's OpenMP runtime

from ._build import build_info
from ._version import VERSION as __version__

__all__ = ["__version__", "build_info"]

_SUBPACKAGES = (
    "cameras",
    "data",
    "fields",
    "gan",
    "meshes",
    "metrics",
    "nerf",
    "ops",
    "pictures",
    "raycast",
    "rendering",
    "sdf",
    "training",
    "volume",
)


if not TYPE_CHECKING:  # a type checker would take every missing name for a subpackage

    def __getattr__(name: str) -> ModuleType:
        if name in _SUBPACKAGES:
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBPACKAGES])
