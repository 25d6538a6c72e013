"""Camera files, data sets, archives and pictures with something wrong in them: read, or refused in one line."""

from __future__ import annotations

import io
import json
import math
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import posed
from mutators import changed_bytes, changed_json
from sdfgan.data.layouts import open_data
from sdfgan.data.scenes import load_scene
from sdfgan.errors import UserError

CAMERA = [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1, 4.2, 0, 0.5, 0, 4.2, 0.5, 0, 0, 1]


def transforms(folder: Path) -> dict[str, Any]:
    frames = posed.write_frames(folder, "images", posed.cameras(4))
    lens = {
        "fl_x": 20.0,
        "w": 20,
        "h": 20,
        "k1": 0.1,
        "distortion_params": [0.1, 0, 0, 0, 0, 0],
        "camera_model": "OPENCV",
    }
    lists = {"train_filenames": ["images/r_0", "images/r_2.png"], "val_filenames": ["images/r_1"]}
    return {**lens, **lists, "mask_path": "images/r_0.png", "rolling_shutter": [0, 0, 0, 0], "frames": frames}


def picture(kind: str, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 12, 4), np.uint8)
    buffer = io.BytesIO()
    image = Image.fromarray(pixels if kind in ("PNG", "WEBP", "TGA") else pixels[..., :3])
    (Image.fromarray(pixels[..., 0] / np.float32(255)) if kind == "TIFF" else image).save(buffer, kind)
    return buffer.getvalue()


def archive(kind: str) -> bytes:
    files = {f"{i}.png": picture("PNG", i) for i in range(3)}
    files["dataset.json"] = json.dumps({"labels": [["0.png", CAMERA], ["1.png", [0, 1]], ["2.png", "3"]]}).encode()
    files["1.cls"] = b"1"  # as dataset.json has it
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
            for name, data in files.items():
                out.writestr(name, data)
    else:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def binary_model() -> tuple[bytes, bytes]:
    cameras = struct.pack("<Q", 1) + struct.pack("<iiQQ12d", 1, 6, 20, 20, 20, 20, 10, 10, *[0.1] * 8)
    poses = [struct.pack("<i7di", i, 1, 0, 0, i / 9, 0, 0, 4, 1) + f"r_{i}.png".encode() + b"\0" for i in range(4)]
    return cameras, struct.pack("<Q", 4) + b"".join(pose + struct.pack("<Qddq", 1, 2.0, 3.0, -1) for pose in poses)


def mutants(kind: str, folder: Path, dice: random.Random) -> tuple[Callable[[], None], Callable[[], Any]]:
    """What writes the next mutant of a kind, and what reads it."""
    if kind == "transforms":
        values = transforms(folder)
        return lambda: write(folder / "transforms.json", changed_json(values, dice)), lambda: load_scene(folder)
    if kind in ("colmap text", "colmap binary"):
        posed.write_frames(folder, "images", posed.cameras(4))
        (folder / "sparse").mkdir()
        lines = "".join(f"{i + 1} 1 0 0 {i / 9} 0 0 4 1 r_{i}.png\n1 2 3 4 5 6\n" for i in range(4))
        text = b"1 FULL_OPENCV 20 20 20 20 10 10 .1 .1 0 0 0 0 0 0\n", b"# Number of images: 4\n" + lines.encode()
        files = dict(zip(("cameras", "images"), text if kind == "colmap text" else binary_model(), strict=True))
        end = ".txt" if kind == "colmap text" else ".bin"

        def model() -> None:
            which = dice.choice(list(files))
            for name, data in files.items():
                write(folder / "sparse" / (name + end), changed_bytes(data, dice) if name == which else data)

        return model, lambda: load_scene(folder)
    if kind in ("zip", "tar"):
        whole = archive(kind)
        file = folder / f"a.{kind}"
        return lambda: write(file, changed_bytes(whole, dice)), lambda: open_data(file, 4)
    if kind == "labels":
        pose = [[1, 0, 0, 2.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
        whole = {
            "dataset.json": {"labels": [["0.png", CAMERA], ["1.png", [0, 1]], ["2.png", "3"]], "cropped": True},
            "poses.json": {"0.png": [1, 2], "1.png": [3, 4]},
            "transforms.json": {"frames": [{"file_path": "0", "transform_matrix": pose}]},
        }
        for i in range(3):
            write(folder / f"{i}.png", picture("PNG", i))

        def labels() -> None:
            which = dice.choice(list(whole))
            for name, values in whole.items():
                write(folder / name, changed_json(values, dice) if name == which else json.dumps(values).encode())

        return labels, lambda: open_data(folder, 4)
    whole = picture(kind)
    write(folder / "sound.png", picture("PNG"))
    return lambda: write(folder / "a.png", changed_bytes(whole, dice)), lambda: open_data(folder, 4)


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


KINDS = [
    "transforms",
    "colmap text",
    "colmap binary",
    "labels",
    "zip",
    "tar",
    "PNG",
    "JPEG",
    "TIFF",
    "GIF",
    "WEBP",
    "TGA",
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_mutants_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    make, read = mutants(kind, folder, random.Random(f"{kind} 1"))
    taken = refused = 0
    for _ in range(170):
        make()
        before = {path for path in tmp_path.rglob("*")}
        try:
            found = read()
        except UserError as error:
            assert str(tmp_path) in str(error) and "\n" not in str(error) and len(str(error)) < 20_000
            refused += 1
        else:
            cameras = found.train.cameras if hasattr(found, "train") else None
            assert cameras is None or cameras.camera_to_world.isfinite().all()
            poses = None if cameras is not None else found.images.poses
            assert poses is None or (poses.isfinite().all() and poses.abs().max() <= 1e6 * math.pi)
            taken += 1
        assert {path for path in tmp_path.rglob("*")} == before
    assert taken > 5 and (refused > 5 or kind in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "TGA"))
    assert torch.is_grad_enabled()
