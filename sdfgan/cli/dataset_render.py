"""`sdfgan dataset render`: a training set from meshes."""

from __future__ import annotations

import math
from pathlib import Path

from sdfgan.cameras import pose_distribution
from sdfgan.cli.arguments import output_path
from sdfgan.cli.flags import RenderSetConfig
from sdfgan.data.rendered import Views, targets, work_folder, write_set
from sdfgan.errors import UserError
from sdfgan.meshes.read import READ_SUFFIXES
from sdfgan.training.progress import progress

_SUFFIXES = (".zip", ".tar", "")


def run(config: RenderSetConfig) -> None:
    """Render it, and say what came of it."""
    root, paths = _meshes(config.meshes)
    for target in targets(config.output, config.held_out):
        if target.suffix.lower() not in _SUFFIXES:
            raise UserError(f"{target}: must be a .zip, a .tar or a folder without a suffix")
        if target.exists():
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


def _meshes(path: Path) -> tuple[Path, list[Path]]:
    """The folder that the names of objects and classes are relative to, and the mesh files in order."""
    if path.is_file():
        return path.parent, [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in READ_SUFFIXES and file.is_file())
    if not found:
        raise UserError(f"{path}: a folder without meshes ({', '.join(READ_SUFFIXES)})")
    return path, found
