"""sdfgan learns 3D shapes as neural signed-distance fields: from photographs, meshes or posed views.

Subpackages load at first use: `import sdfgan` is enough for `sdfgan.raycast.render(...)`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import VERSION as __version__

if TYPE_CHECKING:
    from ._build import build_info

__all__ = ["__version__", "build_info"]

_SUBPACKAGES = (
    "cameras",
    "compat",
    "conditions",
    "data",
    "fields",
    "gan",
    "images",
    "inverse",
    "meshes",
    "metrics",
    "nerf",
    "ops",
    "pictures",
    "raycast",
    "rendering",
    "sdf",
    "selftest",
    "training",
    "viewer",
    "volume",
)


if not TYPE_CHECKING:  # a type checker would take every missing name for a subpackage

    def __getattr__(name: str) -> Any:
        if name in _SUBPACKAGES:
            return import_module(f"{__name__}.{name}")
        if name == "build_info":  # with torch and the native module, for which no command should wait in vain
            return import_module(f"{__name__}._build").build_info
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBPACKAGES})
