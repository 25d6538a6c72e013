"""`--texture-resolution` and `--faces` of the commands that make meshes, and colours from photographs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import posed
from command_line import error
from sdfgan.cameras import look_at
from sdfgan.cli import main
from sdfgan.data.scenes import Views, load_scene
from sdfgan.fields import Sphere
from sdfgan.gan import GanConfig, make_generator
from sdfgan.meshes import marching_cubes, read_model
from sdfgan.nerf.photographs import Photographs
from sdfgan.ops import pixel_views, sample_pixels, valid_pixels
from sdfgan.training.checkpoint import pack_module, save_checkpoint

pytest.importorskip("xatlas", reason='not installed: pip install "sdfgan[meshes]"')
pytest.importorskip("fast_simplification", reason='not installed: pip install "sdfgan[meshes]"')

ASKED = ["--texture-resolution", "64", "--faces", "500"]


def textured_mesh(path: Path) -> tuple[trimesh.Trimesh, np.ndarray]:
    """A file's mesh and the colours [F, 3] in the middles of its faces, as `read_model` has them."""
    mesh = trimesh.load(path, force="mesh", process=False)
    assert mesh.visual.material.baseColorTexture.size == (64, 64) and 100 < len(mesh.faces) <= 500
    model, notes = read_model(path)
    assert notes == []
    face = torch.arange(len(model.tree.faces))
    return mesh, model.albedo(face, torch.full((len(face), 3), 1 / 3))[:, :3].numpy()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return posed.blender_scene(tmp_path_factory.mktemp("scenes") / "ball", train=12, side=40)


def run_of(scene: Path, folder: Path, model: str, *flags: str) -> Path:
    """A tiny run, with a textured mesh at its end."""
    few = "--device cpu --steps 100 --hash-table 12 --hash-finest 32 --hash-levels 4 --grid-resolution 16 --rays 512 "
    few += "--march-steps 64 --samples 6000 --chunk-size 256 --width 16 --warmup-steps 5 --learning-rate 1e-2 "
    few += "--video-frames 0 --mesh-resolution 32 --evaluate-interval 0"
    more = ["--coarse-levels", "2"] if model == "surface" else ["--learning-rate", "5e-2"]
    words = ["--data", str(scene), "--output-dir", str(folder), "--model", model, *few.split(), *more, *ASKED, *flags]
    assert main(["train-nerf", *words]) == 0
    return folder


@pytest.mark.parametrize("model", ["surface", "fast"])
def test_a_scene(scene: Path, tmp_path: Path, model: str) -> None:
    run = run_of(scene, tmp_path / "run", model)
    again = ["extract-mesh", str(run), "--mesh-resolution", "24", "--output-dir", str(tmp_path / "again")]
    assert main([*again, *ASKED]) == 0 and main([*again, "--format", "ply"]) == 0
    bare = trimesh.load(tmp_path / "again" / "mesh.ply", process=False)
    at_vertices = off_by(bare, bare.visual.vertex_colors[bare.faces, :3].mean(1) / 255)
    for path in (run / "mesh.glb", tmp_path / "again" / "mesh.glb"):
        error = off_by(*textured_mesh(path))
        # A hundred steps teach a density its colours only roughly.
        assert error < at_vertices + 0.03 if model == "fast" else error < 0.05


def darkened_ball(folder: Path) -> tuple[Path, torch.Tensor]:
    """A white ball in 24 photographs, each channel of each darkened by a factor [24, 3] of its own."""
    scene = posed.blender_scene(folder, train=24, side=40)
    factors = 0.4 + 0.6 * torch.rand(24, 3, generator=torch.Generator().manual_seed(1))
    for index, factor in enumerate(factors):
        path = scene / "train" / f"r_{index}.png"
        rgba = np.array(Image.open(path))
        rgba[..., :3] = (255 * factor).round().byte().numpy()
        Image.fromarray(rgba).save(path)
    return scene, factors


def unevenness(mesh: trimesh.Trimesh, colours: np.ndarray) -> float:
    """Deviation, relative to the mean, of colours [F, 3] in the middles of faces that cameras look at."""
    height = mesh.triangles_center[:, 1] / np.linalg.norm(mesh.triangles_center, axis=1)
    seen = colours[np.abs(height) < 0.6]
    return float((seen.std(0) / seen.mean(0)).max())


def test_a_texture_has_no_seams_where_photographs_of_other_exposures_meet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the end of a run that learns the exposures, and when its mesh is made again."""
    scene, _ = darkened_ball(tmp_path / "ball")
    run = run_of(scene, tmp_path / "run", "surface", "--exposure", "--learning-rate", "2e-2")
    again = ["extract-mesh", str(run), "--mesh-resolution", "24", "--output-dir", str(tmp_path / "again"), *ASKED]
    assert main(again) == 0
    for path in (run / "mesh.glb", tmp_path / "again" / "mesh.glb"):
        assert unevenness(*textured_mesh(path)) < 0.04
    fewer = posed.blender_scene(tmp_path / "fewer", train=12, side=40)
    capsys.readouterr()
    said = error(capsys, *again, "--data", str(fewer))
    assert said.endswith("has exposures of 24 training images, and the scene has 12")


def off_by(mesh: trimesh.Trimesh, colours: np.ndarray) -> float:
    """Mean error of colours [F, 3] in the middles of faces, of the worst channel."""
    truth = mesh.triangles_center / np.linalg.norm(mesh.triangles_center, axis=1, keepdims=True) / 2 + 0.5
    return float((mesh.area_faces[:, None] / mesh.area * np.abs(colours - truth)).sum(0).max())


def test_a_mesh_with_colours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file's texture is baked into the fitted mesh's; of a file without colours it is grey, and that is said."""
    box = trimesh.creation.box((2.0, 4.0, 3.0)).apply_translation((100.0, 0.0, 0.0))
    plain = box.copy()
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, :32], stripes[:, 32:] = (255, 0, 0), (0, 0, 255)
    uv = np.stack([np.where(box.vertices[:, 1] > 0, 0.9, 0.1), np.full(len(box.vertices), 0.5)], 1)  # by height
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(stripes))
    box.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    box.export(tmp_path / "box.glb")
    plain.export(tmp_path / "plain.stl")
    few = "--preset low --num-points 20000 --epochs 4 --mesh-resolution 32 --no-metrics --device cpu"
    for name in ("box.glb", "plain.stl"):
        run = tmp_path / Path(name).stem
        assert main(["train-sdf", str(tmp_path / name), "--output-dir", str(run), *few.split(), *ASKED]) == 0
        again = ["extract-mesh", str(run), "--mesh-resolution", "24", "--output-dir", str(run / "again"), *ASKED]
        assert main(again) == 0
        said = capsys.readouterr().out
        assert (f"{tmp_path / name}: has no colours: it is grey" in said) == (name == "plain.stl")
        for path in (run / "mesh.glb", run / "again" / "mesh.glb"):
            mesh, colours = textured_mesh(path)
            assert mesh.centroid == pytest.approx([100, 0, 0], abs=0.3)
            height = mesh.triangles_center[:, 1]
            if name == "plain.stl":
                assert np.abs(colours - 0.7).max() < 0.01
            else:
                assert np.abs(colours[height > 0.5] - [0, 0, 1]).max() < 0.02
                assert np.abs(colours[height < -0.5] - [1, 0, 0]).max() < 0.02
    (tmp_path / "box.glb").unlink()
    assert f"{tmp_path / 'box.glb'}: cannot be read" in error(capsys, *again[:1], str(tmp_path / "box"), *again[2:])


def test_shapes_of_a_generator(tmp_path: Path) -> None:
    config = GanConfig(device="cpu", latent_size=4, width=16, mapping_width=16).resolved()
    torch.manual_seed(0)
    tensors = pack_module(make_generator(config), "ema")
    save_checkpoint(tmp_path / "run", 5, tensors, {"kind": "gan", "config": config.to_json()})
    output = tmp_path / "meshes"
    assert main(["extract-mesh", str(tmp_path / "run"), "--seeds", "1", "--output-dir", str(output), *ASKED]) == 0
    textured_mesh(output / "shape-1.glb")
    some = ["--seeds", "1", "--mesh-resolution", "32", "--format", "ply", "--faces", "300"]
    assert main(["extract-mesh", str(tmp_path / "run"), "--output-dir", str(output), *some]) == 0
    mesh = trimesh.load(output / "shape-1.ply", process=False)
    assert len(mesh.faces) <= 300 and mesh.is_watertight
    assert mesh.visual.kind == "vertex" and np.ptp(mesh.visual.vertex_colors[:, :3], 0).max() > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("extract-mesh RUN --texture-resolution 8", "--texture-resolution must be 0 (none) or from 16 to 8192, got 8"),
        ("extract-mesh RUN --texture-resolution 9000", "or from 16 to 8192, got 9000"),
        ("extract-mesh RUN --texture-resolution -1", "or from 16 to 8192, got -1"),
        ("extract-mesh RUN --faces 3", "--faces must be 0 (all) or at least 4, got 3"),
        ("extract-mesh RUN --texture-resolution 64 --format obj", "only GLB files hold their texture, got obj"),
        ("extract-mesh RUN --faces 50 --format mrc", "--faces: is for a mesh, and none is to be made"),
        ("train-sdf RUN --texture-resolution 64 --mesh-format ply", "only GLB files hold their texture, got ply"),
        ("train-sdf RUN --faces 50 --mesh-resolution 0", "--faces: is for a mesh, and none is to be made"),
        ("train-nerf --data RUN --texture-resolution 64 --mesh-resolution 0", "is for a mesh, and none is to be made"),
    ],
)
def test_bad_input(words: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in error(capsys, *words.replace("RUN", str(tmp_path)).split())


def test_samples_have_no_colours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (200, 3)).astype(np.float32)
    np.savez(tmp_path / "s.npz", points=points, distances=np.linalg.norm(points, axis=1) - 0.5)
    words = ["train-sdf", str(tmp_path / "s.npz"), "--output-dir", str(tmp_path / "run"), "--device", "cpu", *ASKED]
    assert f"{tmp_path / 's.npz'}: holds samples without colours" in error(capsys, *words)
    few = ["--epochs", "1", "--preset", "low", "--mesh-resolution", "12", "--num-points", "200"]
    assert main([*words[: -len(ASKED)], *few]) == 0
    capsys.readouterr()
    words = ["extract-mesh", str(tmp_path / "run"), "--mesh-resolution", "12", "--device", "cpu", *ASKED]
    assert f"{tmp_path / 's.npz'}: holds samples without colours" in error(capsys, *words)


@pytest.mark.parametrize("command", ["train-nerf --data", "train-sdf", "extract-mesh"])
@pytest.mark.parametrize(("flag", "module"), [("--faces", "fast_simplification"), ("--texture-resolution", "xatlas")])
def test_without_the_extra(
    command: str,
    flag: str,
    module: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = error(capsys, *command.split(), str(tmp_path), flag, "64")
    assert said.endswith(f'{flag} needs {module}: pip install "sdfgan[meshes]"')


# ------------------------------------------------------------------------------------------------ from photographs


BALL = posed.RADIUS / 1.5  # in the scene's cube


def places(count: int = 2000) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=random), dim=1)


def test_photographs_show_the_true_colours_whatever_one_of_them_shows(tmp_path: Path) -> None:
    views = load_scene(posed.blender_scene(tmp_path, train=24, side=100)).train
    field, normals = Sphere(radius=BALL), places()
    mesh = marching_cubes(field, resolution=48)
    truth = normals / 2 + 0.5
    found = Photographs(views, mesh, field).colours(BALL * normals, normals)
    seen = normals[:, 1].abs() < 0.6  # from above and below nobody looks
    assert (found - truth)[seen].abs().mean() < 0.01 and (found - truth)[seen].abs().max() < 0.06
    start, end = views.cameras.starts[3:5].tolist()
    views.pixels[start:end, :3] = 255 - views.pixels[start:end, :3]  # one is a negative
    spoilt = Photographs(views, mesh, field).colours(BALL * normals, normals)
    assert (spoilt - truth)[seen].abs().mean() < 0.015
    masked = views.cameras._replace(mask=torch.ones(len(views.pixels), dtype=torch.bool))
    masked.mask[start:end] = False
    hidden = Photographs(Views(views.names, views.pixels, views.sizes, masked), mesh, field)
    assert (hidden.colours(BALL * normals, normals) - truth)[seen].abs().max() < 0.06


def test_photographs_are_divided_by_their_exposures(tmp_path: Path) -> None:
    scene, factors = darkened_ball(tmp_path)
    field, normals, views = Sphere(radius=BALL), places(), load_scene(scene).train
    mesh = marching_cubes(field, resolution=48)
    seen = normals[:, 1].abs() < 0.6
    found = Photographs(views, mesh, field, factors).colours(BALL * normals, normals)[seen]
    assert (found - 1).abs().mean() < 0.01 and (found - 1).abs().max() < 0.03
    dark = Photographs(views, mesh, field).colours(BALL * normals, normals)[seen]
    assert dark.std(0).min() > 0.05
    views.pixels[:, :3] = 180
    brighter = torch.ones(24, 3)
    brighter[::2] = 1.6  # by which 180 is clipped
    start = views.cameras.starts.tolist()
    for index in range(0, 24, 2):
        views.pixels[start[index] : start[index + 1], :3] = 255
    found = Photographs(views, mesh, field, brighter).colours(BALL * normals, normals)[seen]
    assert (found - 180 / 255).abs().max() < 0.01


def test_what_is_hidden_from_the_cameras_has_the_colour_of_the_field(tmp_path: Path) -> None:
    views = load_scene(posed.blender_scene(tmp_path, train=8)).train
    field, normals = Sphere(radius=BALL), places()
    shell = trimesh.util.concatenate([marching_cubes(field, resolution=32), trimesh.creation.icosphere(3, radius=0.9)])
    found = Photographs(views, shell, field).colours(BALL * normals, normals)
    assert torch.equal(found, torch.full_like(found, 0.7))  # of a field without colours


LENSES: list[Any] = [
    (None, False),
    ([-0.2, 0.05, 0.01, -0.02], False),
    ([0.1, 0.02, 0.01, -0.02, 0.01, 0.05, 0.02, 0.01], False),
    ([0.02, 0.01, 0.0, 0.0, 0.003], True),
]


@pytest.mark.parametrize(("lens", "fisheye"), LENSES)
def test_pixels_of_places_are_those_whose_rays_meet_them(lens: list[float] | None, fisheye: bool) -> None:
    """The lens forwards, against its inversion by Newton's method."""
    size = torch.tensor([[60, 80]])
    distortion = None if lens is None else torch.tensor([lens])
    cameras = pixel_views(
        look_at(torch.tensor([[1.0, 2.0, 3.0]])),
        torch.tensor([[50.0, 55.0, 41.0, 29.0]]),
        size,
        distortion,
        torch.tensor([True]) if fisheye else None,
    )
    pixels = valid_pixels(cameras)
    rays = sample_pixels(cameras, pixels)
    views = Views(["a"], torch.zeros(4800, 4, dtype=torch.uint8), size, cameras)
    mesh = trimesh.creation.icosphere(1)
    found = Photographs(views, mesh, Sphere(radius=1.0))._pixels(0, rays.directions * 2.5)
    centres = torch.stack([pixels % 80 + 0.5, pixels // 80 + 0.5], 1)
    assert len(pixels) > 4000 and (found - centres).abs().max() < 1e-2 and math.isfinite(found.sum().item())
