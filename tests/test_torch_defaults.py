"""What is made on the host from files and meshes does not depend on torch's default dtype and device."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

import posed
from sdfgan import cameras, fields, meshes
from sdfgan.data.layouts import open_data
from sdfgan.data.scenes import load_scene
from sdfgan.meshes.appearance import read_model, render_model
from sdfgan.sdf import GroundTruth, repair

AXES = cameras.rotate_axes((torch.tensor([0.3]), torch.tensor([0.5])))
POINTS = torch.tensor([[0.0, 0, 0], [0.9, 0, 0], [0.45, 0.1, 0.2]])
BALL, NET = fields.Sphere(0.5), fields.FilmSirenSDF(width=16, latent_size=4)


@pytest.fixture(params=[torch.float64, torch.bfloat16, "meta"], ids=str)
def default(request: pytest.FixtureRequest) -> Iterator[None]:
    """Meanwhile torch has another default dtype or device; meta's tensors have no memory that could be read."""
    if request.param == "meta":
        with torch.device("meta"):
            yield
        return
    torch.set_default_dtype(request.param)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("default")
def test_meshes(tmp_path: Path) -> None:
    box = trimesh.creation.box((1, 1, 1))
    distance = GroundTruth(box).distance_and_normal(POINTS)[0]
    assert distance.dtype == torch.float32 and distance.tolist() == pytest.approx([-0.5, 0.4, -0.05], abs=1e-6)
    shells = trimesh.util.concatenate([trimesh.creation.icosphere(1, 1), trimesh.creation.icosphere(1, 0.5)])
    shells.invert()
    assert repair(shells)[0].volume == pytest.approx(-shells.volume)
    box.export(tmp_path / "box.ply")
    image = render_model(read_model(tmp_path / "box.ply")[0], AXES, 16)
    assert image.dtype == torch.float32 and 0.2 < image[:, 3].mean() < 0.6


@pytest.mark.usefixtures("default")
def test_surfaces_of_networks() -> None:
    condition = NET.condition(torch.zeros(1, 4, device="cpu", dtype=torch.float32))
    mesh = meshes.marching_cubes(NET, condition, resolution=16)  # nearly the ball of its prior
    assert np.linalg.norm(mesh.vertices, axis=1).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.usefixtures("default")
def test_data(tmp_path: Path) -> None:
    names = [f"images/{i}.png" for i in range(4)]
    matrices = [matrix.tolist() for matrix in POSES]
    frames = [{"file_path": name, "transform_matrix": m} for name, m in zip(names, matrices, strict=True)]
    (tmp_path / "images").mkdir()
    for name in names:
        posed.Image.new("RGB", (8, 8), (10, 20, 30)).save(tmp_path / name)
    (tmp_path / "transforms.json").write_text(json.dumps({"fl_x": 9.0, "k1": 0.1, "frames": frames}))
    views = load_scene(tmp_path).train
    assert views.cameras.intrinsics.dtype == torch.float32 and views.cameras.intrinsics[0].tolist() == [9, 9, 4, 4]
    assert views.pinholes() is not None and views.cameras.camera_to_world.device.type == "cpu"
    found = open_data(tmp_path, 8)
    assert found.images.poses is not None and found.images.poses.dtype == torch.float32
    assert found.images.batch(torch.zeros(1, dtype=torch.int64, device="cpu"), 8)[0, :, 0, 0].tolist() == [
        10,
        20,
        30,
        255,
    ]


POSES = cameras.to_blender(posed.cameras(4, start=0.2))
