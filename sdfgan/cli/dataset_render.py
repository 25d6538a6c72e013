"""`sdfgan dataset render`: a training set from meshes."""

from __future__ import annotations

import math

from sdfgan.cameras import pose_distribution
from sdfgan.cli.arguments import output_path
from sdfgan.cli.flags import RenderSetConfig
from sdfgan.data.rendered import Views, mesh_files, targets, work_folder, write_set
from sdfgan.errors import UserError
from sdfgan.training.progress import progress

_SUFFIXES = (".zip", ".tar", "")


def run(config: RenderSetConfig) -> None:
    """Render it, and say what came of it."""
    root, paths = mesh_files(config.meshes)
    for target in targets(config.output, config.held_out):
        if target.suffix.lower() not in _SUFFIXES:
            raise UserError(f"{target}: must be a .zip, a .tar or a folder without a suffix")
        if target.exists() and not work_folder(config.output).exists():  # else a run that was stopped has made it
            raise UserError(f"{target}: exists; name a new .zip, .tar or folder")
        output_path(target, target, folder=target.suffix == "")
    elevation, azimuth = ((math.radians(low), math.radians(high)) for low, high in (config.elevation, config.azimuth))
    views = Views(
        config.views,
        config.resolution,
        pose_distribution(config.poses, elevation, azimuth),
        math.radians(config.fov),
        config.supersample,
        config.light == "random",
        config.up == "z",
        config.background,
        config.seed,
    )
    try:
        with progress(len(paths), "meshes") as bar:
            made = write_set(
                root, paths, config.output, views, config.held_out, print, lambda name: bar.advance(1, name)
            )
    except KeyboardInterrupt:
        work = work_folder(config.output)
        raise KeyboardInterrupt(f"the same command goes on with what is in {work}" if work.exists() else "") from None
    for one in made:
        print(f"wrote {one.images} images of {one.objects} objects to {one.path}")
    power_of_two = max(16, 1 << config.resolution.bit_length() - 1)
    print(f"train with: sdfgan train-gan --data {config.output} --resolution {power_of_two}")
