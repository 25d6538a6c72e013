"""`sdfgan import-weights`: a generator that dfr or pi-GAN trained becomes a run of this package."""

from __future__ import annotations

from sdfgan.cli.flags import ImportWeightsConfig
from sdfgan.compat.importers import import_generator


def run(config: ImportWeightsConfig) -> None:
    """Write the run, and say where it is and how its images are taken."""
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
        depths = f", sampled between {seen.near_far[0]:g} and {seen.near_far[1]:g}"
    print(
        f"images of {seen.resolution} px, {seen.poses} poses, azimuth {seen.azimuth[0]:g} to {seen.azimuth[1]:g}, "
        f"elevation {seen.elevation[0]:g} to {seen.elevation[1]:g}, field of view {seen.fov:g} degrees{depths}"
    )
    if config.curriculum is None:
        print(f"settings not given are assumed to be those of {made.curriculum}; otherwise give --curriculum")
    print(f"imported the generator of {seen.generator}; wrote {made.checkpoint}")
