"""Data sets read by the workers of a PyTorch DataLoader, and with cameras at any distance."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from sdfgan.data.layouts import open_data


def png(red: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (red, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_workers_of_a_loader_read_the_same(kind: str, tmp_path: Path) -> None:
    """Forked processes share the position in a file that was open before, and each other's reads would move it."""
    path, reds = tmp_path / f"set.{kind}", [5 * i for i in range(48)]
    files = {f"{i:03d}.png": png(red) for i, red in enumerate(reds)}
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    elif kind == "tar":
        with tarfile.open(path, "w") as shard:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))
    else:
        path.mkdir()
        for name, data in files.items():
            (path / name).write_bytes(data)
    images = open_data(path, 8, cache="none").images
    passed_on = pickle.loads(pickle.dumps(images))  # as processes that are spawned get it
    assert passed_on.batch(torch.arange(48), 8)[:, 0, 4, 4].tolist() == reds

    class Reds(torch.utils.data.Dataset[int]):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> int:
            return int(images.batch(torch.tensor([index]), 8)[0, 0, 4, 4])

    loader = torch.utils.data.DataLoader(Reds(), batch_size=2, num_workers=2, multiprocessing_context="fork")
    assert torch.cat(list(loader)).tolist() == reds


@pytest.mark.parametrize("far", [1e-300, 1.0, 1e300])  # the squares of two are no numbers
def test_directions_of_cameras_at_any_distance(far: float, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    # Blender is z-up: a camera on its -y axis looks along +y, and is on +z here.
    matrix = [[1.0, 0, 0, 0], [0, 1, 0, -far], [0, 0, 1, far], [0, 0, 0, 1]]
    frames = {"frames": [{"file_path": "./a", "transform_matrix": matrix}]}
    (tmp_path / "transforms_train.json").write_text(json.dumps(frames))
    poses = open_data(tmp_path, 8).images.poses
    torch.testing.assert_close(poses.rad2deg(), torch.tensor([[45.0, 0]]), atol=1e-4, rtol=0)
