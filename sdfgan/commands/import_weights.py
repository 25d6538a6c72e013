"""`sdfgan import-weights`: a generator that dfr or pi-GAN trained becomes a run of this package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sdfgan.errors import UserError
from sdfgan.gan.imports import import_generator


@dataclass(frozen=True)
class ImportWeightsConfig:
    """Import a generator's state dictionary of dfr or pi-GAN: then render, extract-mesh and the others take it."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """State dictionary: .safetensors, or a torch file of tensors and plain values only. Nothing is unpickled."""
    output_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """New run folder."""
    kind: Literal["auto", "dfr", "pi-gan"] = "auto"
    """Whose it is. auto: told by the names of the tensors."""
    fov: float | None = None
    """Field of view it was trained with, degrees. Default: 25 for dfr, 12 for pi-GAN."""
    level: float = 10.0
    """Density at which extract-mesh cuts pi-GAN's radiance field to a surface; pictures are of the volume."""
    omega_first: float = 5.0
    """Frequency of dfr's first layer."""
    omega_hidden: float = 15.0
    """Frequency of dfr's other layers."""
    box_warp: bool = True
    """Whether the pi-GAN is one of the spatial variants, whose coordinates are scaled by 2 / 0.24."""


def run(config: ImportWeightsConfig) -> None:
    """Write the run, and say where it is."""
    if config.fov is not None and not 1 <= config.fov <= 150:
        raise UserError(f"--fov must be between 1 and 150 degrees, got {config.fov}")
    checkpoint, kind = import_generator(
        config.file,
        config.output_dir,
        config.kind,
        fov=config.fov,
        level=config.level,
        omegas=(config.omega_first, config.omega_hidden),
        box_warp=config.box_warp,
    )
    print(f"imported the generator of {kind}; wrote {checkpoint}")
