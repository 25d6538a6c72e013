"""Training sets rendered from meshes: random views of each object, with poses, labels and a split by object."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sdfgan.cameras import PoseDistribution, rotate_axes
from sdfgan.data.convert import Write, dataset_json, encode, image_name, is_written, writer
from sdfgan.errors import UserError
from sdfgan.meshes import read_model, render_model
from sdfgan.meshes.read import READ_SUFFIXES
from sdfgan.raycast import Lighting
from sdfgan.training.files import FolderLock, atomic_file, parse_json, write_json

_HELD_OUT = "-held-out"
_SETTINGS = "settings.json"
_TEXELS = 4  # of a texture, along its longer side, for each pixel along an image's


class Views(NamedTuple):
    """How each object is shown."""

    per_object: int
    resolution: int
    poses: PoseDistribution
    fov: float  # vertical, radians
    supersample: int
    random_light: bool
    z_up: bool
    background: tuple[float, float, float] | None  # None: transparent
    seed: int


class Written(NamedTuple):
    """What `write_set` made."""

    path: Path
    objects: int
    images: int


def mesh_files(path: Path) -> tuple[Path, list[Path]]:
    """The folder that the names of objects and classes are relative to, and the mesh files in order. UserError."""
    if path.is_file():
        return path.parent, [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in READ_SUFFIXES and file.is_file())
    if not found:
        raise UserError(f"{path}: a folder without meshes ({', '.join(READ_SUFFIXES)})")
    return path, found


def object_name(path: Path) -> str:
    """Files of one folder whose names are alike up to "--" are one object, in several liveries."""
    return (path.parent / path.stem.split("--")[0]).as_posix()


def held_out(paths: Sequence[Path], share: float, seed: int) -> set[Path]:
    """The files of a random share of the objects; at least one object where the share is not 0."""
    names = sorted({object_name(path) for path in paths})
    count = 0 if share == 0 else max(1, round(share * len(names)))
    if count >= len(names) > 0 and share > 0:
        raise UserError(f"--held-out {share:g}: leaves none of {len(names)} objects for training")
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = {names[i] for i in order[:count]}
    return {path for path in paths if object_name(path) in chosen}


def labels_of(paths: Sequence[Path], root: Path) -> tuple[dict[Path, int], list[str]]:
    """The class of each file, the folder of `root` that it is in, and the classes' names; none where there is one."""
    folders = {path: path.relative_to(root).parts[0] for path in paths if len(path.relative_to(root).parts) > 1}
    names = sorted(set(folders.values()))
    if len(names) < 2 or len(folders) < len(paths):
        return {}, []
    return {path: names.index(folder) for path, folder in folders.items()}, names


def render_views(path: Path, number: int, views: Views) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images [V, R, R, 4] uint8, premultiplied, of a mesh file, its poses [V, 2] in degrees, and what was left out.

    They depend on the seed and the object's number alone. Raises UserError for a file that cannot be read.
    """
    random = torch.Generator().manual_seed(int(np.random.SeedSequence([views.seed, number]).generate_state(1)[0]))
    elevation, azimuth = views.poses.sample(views.per_object, random)
    axes = rotate_axes((elevation, azimuth))
    model, notes = read_model(path, texels=max(64, _TEXELS * views.resolution))
    if views.z_up:  # the camera goes round z instead of y: (x, y, z) of the images is (x, z, -y) of the file
        axes = axes[:, :, [0, 2, 1]] * torch.tensor([1.0, -1.0, 1.0])
    light = Lighting.random(axes, random) if views.random_light else None
    images = render_model(model, axes, views.resolution, fov=views.fov, supersample=views.supersample, light=light)
    if views.background is not None:
        behind = torch.tensor(views.background)[:, None, None] * (1 - images[:, 3:])
        images = torch.cat([images[:, :3] + behind, torch.ones_like(images[:, 3:])], 1)
    bytes_ = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return bytes_, np.degrees(np.stack([elevation.numpy(), azimuth.numpy()], 1)), notes


def write_set(
    root: Path,
    paths: Sequence[Path],
    output: Path,
    views: Views,
    share: float,
    say: Callable[[str], None],
    advance: Callable[[str], None],
) -> list[Written]:
    """Render every file and write `output`, and beside it OUTPUT-held-out where a share of the objects is held out.

    What has been rendered lies in OUTPUT.rendering until all is done: a run that was stopped goes on from there.
    Raises UserError where no file can be read, or where that folder is of other settings.
    """
    apart = held_out(paths, share, views.seed)
    work = work_folder(output)
    settings = {
        "meshes": [path.relative_to(root).as_posix() for path in paths],
        "views": {k: str(v) if isinstance(v, PoseDistribution) else v for k, v in views._asdict().items()},
    }
    with FolderLock(work):
        _begin(work, settings, targets(output, share))
        return _make(root, paths, apart, output, views, say, advance)


def _make(
    root: Path,
    paths: Sequence[Path],
    apart: set[Path],
    output: Path,
    views: Views,
    say: Callable[[str], None],
    advance: Callable[[str], None],
) -> list[Written]:
    """What `write_set` does in its folder."""
    work, failed = work_folder(output), {}
    labels, classes = labels_of(paths, root)
    for number, path in enumerate(paths):
        kept = work / f"{number:06d}.npz"
        if not kept.exists():
            try:
                images, poses, notes = render_views(path, number, views)
            except UserError as error:
                failed[path] = str(error)
                say(f"left out: {error}")
                advance(path.stem)
                continue
            for note in notes:
                say(note)
            with atomic_file(kept) as partial, partial.open("wb") as file:
                np.savez_compressed(file, images=images, poses=poses)
        advance(path.stem)
    if len(failed) == len(paths):
        shutil.rmtree(work)  # there is nothing to go on from
        raise UserError(
            f"{root}: none of its {len(paths)} meshes can be read; the first: {next(iter(failed.values()))}"
        )
    made = []
    for target, chosen in ((output, set(paths) - apart), (_beside(output), apart)):
        members = [(n, path) for n, path in enumerate(paths) if path in chosen and path not in failed]
        if not members:
            if chosen:
                say(f"{target}: not written: none of its {len(chosen)} meshes could be read")
            continue
        if not is_written(target):  # else a run that was stopped has made it
            with writer(target) as write:
                _write(write, work, members, labels)
        objects = len({object_name(path) for _, path in members})
        made.append(Written(target, objects, len(members) * views.per_object))
    for index, name in enumerate(classes):
        say(f"label {index}: {name}")
    for kept in work.glob("*.npz"):  # before the settings, which say whose the rest is
        kept.unlink()
    shutil.rmtree(work)
    return made


def _beside(output: Path) -> Path:
    return output.with_name(f"{output.stem}{_HELD_OUT}{output.suffix}")


def work_folder(output: Path) -> Path:
    """Where `write_set` keeps what has been rendered until all is done."""
    return output.with_name(f"{output.name}.rendering")


def targets(output: Path, share: float) -> list[Path]:
    """What `write_set` will write."""
    return [output, *([_beside(output)] if share else [])]


def _begin(work: Path, settings: dict[str, Any], made: Sequence[Path]) -> None:
    known = work / _SETTINGS
    if known.exists():
        try:
            same = parse_json(known.read_bytes()) == json.loads(json.dumps(settings))
        except (OSError, ValueError):
            same = False
        if not same:
            raise UserError(f"{work}: holds images of other meshes or settings; delete it, or name another OUTPUT")
        return
    for target in made:
        if target.exists():  # the run that was stopped had nothing left to do
            shutil.rmtree(work)
            raise UserError(f"{target}: exists; name a new .zip, .tar or folder")
    write_json(known, settings)


def _write(write: Write, work: Path, members: Sequence[tuple[int, Path]], labels: dict[Path, int]) -> None:
    """The images of some files in StyleGAN's layout, with labels and poses."""
    named_labels: dict[str, int] = {}
    named_poses: dict[str, list[float]] = {}
    count = 0
    for number, path in members:
        for image, pose in _kept(work / f"{number:06d}.npz"):
            name = image_name(count)
            write(name, encode(image))
            named_poses[name] = [round(float(angle), 6) for angle in pose]
            if path in labels:
                named_labels[name] = labels[path]
            count += 1
    if named_labels:
        write("dataset.json", dataset_json(named_labels))
    write("poses.json", json.dumps(named_poses).encode())


def _kept(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    with np.load(path, allow_pickle=False) as arrays:
        yield from zip(arrays["images"], arrays["poses"], strict=True)
