"""`sdfgan import-weights`: a generator that dfr or pi-GAN trained becomes a run of this package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sdfgan.compat.importers import import_generator


@dataclass(frozen=True)
class ImportWeightsConfig:
    """Import a generator's state dictionary of dfr or pi-GAN: then render, extract-mesh and the others take it."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """State dictionary: .safetensors, or a torch file of tensors and plain values only. Nothing is unpickled."""
    output_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """New run folder."""
    kind: Literal["auto", "dfr", "pi-gan"] = "auto"
    """Whose it is. auto: told by the names of the tensors."""
    curriculum: str | None = None
    """What it was trained with (celeba, cats, carla, dfr or a JSON file): from where invert and evaluate look at its
    shapes, how evaluate --real crops. Default: dfr; for pi-GAN celeba, or carla with --no-box-warp."""
    poses: str | None = None
    """Distribution of camera poses, in place of the curriculum's; see train-gan."""
    elevation: tuple[float, float] | None = None
    """Range of elevations, degrees, in place of the curriculum's."""
    azimuth: tuple[float, float] | None = None
    """Range of azimuths, degrees, in place of the curriculum's; 0 is the front."""
    fov: float | None = None
    """Field of view, degrees, in place of the curriculum's."""
    near_far: tuple[float, float] | None = None
    """pi-GAN's ray_start and ray_end, in place of the curriculum's: rays ask the field only between them."""
    resolution: int | None = None
    """Side of its pictures, in place of that at the end of the curriculum."""
    level: float = 10.0
    """Density at which extract-mesh cuts pi-GAN's radiance field to a surface; pictures are of the volume."""
    omega_first: float = 5.0
    """Frequency of dfr's first layer."""
    omega_hidden: float = 15.0
    """Frequency of dfr's other layers."""
    box_warp: bool = True
    """Whether the pi-GAN is one of the spatial variants, whose coordinates are scaled by 2 / 0.24. carla's is not."""


def run(config: ImportWeightsConfig) -> None:
    """Write the run, and say where it is and how its pictures are taken."""
    names = ("poses", "elevation", "azimuth", "fov", "near_far", "resolution")
    camera = {name: getattr(config, name) for name in names}
    made = import_generator(
        config.file,
        config.output_dir,
        config.kind,
        curriculum=config.curriculum,
        camera={name: value for name, value in camera.items() if value is not None},
        level=config.level,
        omegas=(config.omega_first, config.omega_hidden),
        box_warp=config.box_warp,
    )
    seen = made.config
    depths = ""
    if seen.near_far is not None and seen.generator == "pi-gan":
        depths = f", asked between {seen.near_far[0]:g} and {seen.near_far[1]:g}"
    print(
        f"pictures of {seen.resolution} px, {seen.poses} poses, azimuth {seen.azimuth[0]:g} to {seen.azimuth[1]:g}, "
        f"elevation {seen.elevation[0]:g} to {seen.elevation[1]:g}, field of view {seen.fov:g} degrees{depths}"
    )
    if config.curriculum is None:
        print(f"what was not given is assumed to be as in {made.curriculum}: if it is not, say so by --curriculum")
    print(f"imported the generator of {seen.generator}; wrote {made.checkpoint}")
