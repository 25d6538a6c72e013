"""`sdfgan train-sdf`: a mesh, or each mesh of a folder, as a neural signed-distance field."""

from __future__ import annotations

from sdfgan.sdf.config import SdfConfig
from sdfgan.sdf.report import describe
from sdfgan.sdf.runs import train

__all__ = ["SdfConfig", "run"]


def run(config: SdfConfig) -> None:
    """Train, and say how well."""
    summary = train(config)
    for line in describe(summary):
        print(line)
