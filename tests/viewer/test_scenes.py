"""What can be viewed: every kind of result, from any camera, as pictures, slices and meshes."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import trimesh

from results import gan_run, mesh_file, nerf_run, sdf_run
from sdfgan.errors import UserError
from sdfgan.gan import GanConfig, make_generator
from sdfgan.images import to_bytes
from sdfgan.raycast import Lighting
from sdfgan.sdf.report import colour_distance
from sdfgan.training.checkpoint import pack_module, save_checkpoint
from sdfgan.viewer.generator import SLIDERS, Choice, GeneratorScene
from sdfgan.viewer.runs import Progress, find_result, open_scene
from sdfgan.viewer.scenes import Scene, rays
from sdfgan.viewer.scheduler import Stale
from sdfgan.viewer.view import Style, View

CPU = torch.device("cpu")
VIEW = View(0.3, 0.5, height=24, width=32)
ASIDE = View(0.4, 0.9, zoom=1.7, target=(0.2, -0.1, 0.15), height=24, width=32)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("results")
    return {
        "gan": gan_run(folder / "gan"),
        "pi-gan": gan_run(folder / "pi-gan", generator="pi-gan"),
        "nerf": nerf_run(folder / "nerf"),
        "sdf": sdf_run(folder / "sdf"),
        "mesh": mesh_file(folder / "meshes"),
    }


def scene_of(path: Path) -> Scene:
    return open_scene(find_result(path), CPU)


@pytest.mark.parametrize("kind", ["gan", "pi-gan", "nerf", "sdf", "mesh"])
@pytest.mark.parametrize("show", ["colour", "normals", "depth"])
def test_every_kind_is_drawn_in_every_way(paths: dict[str, Path], kind: str, show: str) -> None:
    scene = scene_of(paths[kind])
    condition = scene.condition()
    images = [
        scene.image(VIEW, Style(show, background, fine=fine), condition)
        for background in ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
        for fine in (True, False)
    ]
    for image in images:
        assert image.shape == (3, 24, 32) and image.isfinite().all() and image.min() >= 0 and image.max() <= 1
    if kind != "nerf":  # untrained, it is a fog
        assert (images[0][:, 0, 0] == 1).all() and (images[2][:, 0, 0] == 0).all()
        middle = images[0][:, 12, 16]
        assert (middle - 1).abs().max() > 0.05
        if show != "depth":
            torch.testing.assert_close(middle, images[2][:, 12, 16], atol=0.01, rtol=0)


@pytest.mark.parametrize("kind", ["gan", "sdf", "mesh"])
@pytest.mark.parametrize("view", [VIEW, ASIDE, replace(ASIDE, zoom=0.4), replace(VIEW, height=25, width=9)])
def test_rays_and_pictures_agree_wherever_the_camera_is(paths: dict[str, Path], kind: str, view: View) -> None:
    scene = scene_of(paths[kind])
    condition = scene.condition()
    with torch.no_grad():
        seen = scene.look(view, Style(), condition, lambda: None)
        origins, directions = rays(view)
        inner = (seen.alpha == 1).flatten()
        assert inner.sum() > 5
        points = origins[inner] + seen.depth.flatten()[inner, None] * directions[inner]
        assert scene.distance(points, condition).abs().max() < 0.03  # the mesh's depths are means of four rays'


def test_a_window_is_a_part_of_the_whole(paths: dict[str, Path]) -> None:
    scene = scene_of(paths["gan"])
    condition = scene.condition()
    whole = scene.image(View(0.3, 0.5, height=64, width=64), Style(), condition)
    part = scene.image(View(0.3, 0.5, zoom=2.0, height=32, width=32), Style(), condition)
    torch.testing.assert_close(part, whole[:, 16:48, 16:48], atol=2e-3, rtol=0)  # at its rim creases are not blended
    far = scene.image(View(0.3, 0.5, zoom=0.5, height=128, width=160), Style(), condition)
    torch.testing.assert_close(far[:, 32:96, 48:112], whole)
    assert (far[:, :32] == 1).all() and (far[:, :, :48] == 1).all()
    beside = scene.image(View(0.3, 0.5, target=(9.0, 9.0, 9.0), height=8, width=8), Style(), condition)
    assert (beside == 1).all()


def test_what_is_zoomed_in_far_is_drawn_coarser(paths: dict[str, Path]) -> None:
    image = scene_of(paths["mesh"]).image(View(0.0, 0.0, zoom=50.0, height=512, width=512), Style(fine=False))
    assert image.shape == (3, 40, 40)


def test_a_browsers_camera() -> None:
    view = View.of((0.0, 4.0, 0.0), (0.0, 0.0, 0.0), math.pi / 2, fov=0.7, height=10, width=20)
    assert replace(view, zoom=round(view.zoom, 9)) == View(math.pi / 2, 0.0, 0.25, fov=0.7, height=10, width=20)
    view = View.of((3.0, 0.5, -1.0), (1.0, 0.5, -1.0), math.pi / 2)
    assert (view.elevation, view.azimuth, *view.target) == pytest.approx((0.0, math.pi / 2, 1.0, 0.5, -1.0))
    assert View.of((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), 1.0).zoom == pytest.approx(64), (
        "a camera on its target is no error"
    )
    assert View.of((0.0, 0.0, 1e9), (0.0, 0.0, 0.0), 1.0).zoom == pytest.approx(1 / 64)


@pytest.mark.parametrize("kind", ["gan", "sdf", "mesh"])
@pytest.mark.parametrize(
    ("axis", "view"), [(2, View(0.0, 0.0, height=33, width=33)), (1, View(1.2, 0, height=33, width=33))]
)
def test_a_slice_shows_distances_and_cuts_away_what_is_before_it(
    paths: dict[str, Path], kind: str, axis: int, view: View
) -> None:
    scene = scene_of(paths[kind])
    condition, height = scene.condition(), 0.1
    style = Style(cut=(axis, height))
    image = scene.image(view, style, condition)
    origins, directions = rays(view)
    t = (height - origins[:, axis]) / directions[:, axis]
    points = origins + t[:, None] * directions
    middle = 33 * 16 + 16
    with torch.no_grad():
        value = scene.distance(points[middle : middle + 1], condition)
        expected = colour_distance(value.expand(1, 33, 33))[0, :, 0, 0]
        torch.testing.assert_close(image[:, 16, 16], expected)
        depth = scene.look(view, style, condition, lambda: None).depth.flatten()
    assert (depth >= t - 0.05)[depth.isfinite()].all()


def test_light_comes_from_where_it_is_said(paths: dict[str, Path]) -> None:
    for kind in ("gan", "mesh"):
        scene, view = scene_of(paths[kind]), View(height=32, width=32)
        light = Lighting(0.0, 0.0, 1.0, (-1.0, 0.0, 0.0))
        brightness = scene.image(view, Style(light=light, background=(0, 0, 0)), scene.condition()).sum((0, 1))
        assert brightness[:16].sum() > 1.5 * brightness[16:].sum()


@pytest.mark.parametrize("kind", ["gan", "nerf", "sdf", "mesh"])
def test_meshes_to_download(paths: dict[str, Path], kind: str) -> None:
    scene = scene_of(paths[kind])
    if kind == "nerf":
        with pytest.raises(UserError, match="no surface"):  # untrained
            scene.glb(scene.condition(), 16)
        return
    content = scene.glb(scene.condition(), 24)
    mesh = trimesh.load(io.BytesIO(content), file_type="glb", force="mesh")
    assert len(mesh.faces) > 100
    if kind == "sdf":
        assert mesh.bounds.mean(0)[0] == pytest.approx(5.0, abs=0.3), "where the mesh that was learnt lay"
    if kind == "mesh":
        assert content == paths["mesh"].read_bytes()


def test_a_picture_that_nobody_wants_is_given_up(paths: dict[str, Path]) -> None:
    def stale() -> None:
        raise Stale

    for kind in ("nerf", "mesh"):
        with pytest.raises(Stale):
            scene_of(paths[kind]).image(VIEW, Style(), None, stale)


# --------------------------------------------------------------------------------------------------------- generators


def test_choices_of_a_generator(paths: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    scene = scene_of(paths["gan"])
    assert isinstance(scene, GeneratorScene) and scene.groups == ("shape",)

    def scales(**choice: object) -> torch.Tensor:
        return scene.condition(Choice(**choice)).scales

    assert torch.equal(scales(), scales(other=9)) and not torch.equal(scales(), scales(seed=1))
    torch.testing.assert_close(scales(other=1, share=1.0), scales(seed=1))
    torch.testing.assert_close(scales(other=1, share=0.25), 0.75 * scales() + 0.25 * scales(seed=1))
    torch.testing.assert_close(scales(psi=0.0), scales(seed=5, psi=0.0))
    torch.testing.assert_close(scales(psi=0.0), scene.mean.scales)
    one, two = (scales(moves=(size, *[0.0] * (SLIDERS - 1))) - scales() for size in (1.0, 2.0))
    torch.testing.assert_close(two, 2 * one, atol=1e-5, rtol=1e-4)
    lengths = scene.directions.norm(dim=1)
    assert (lengths[:-1] >= lengths[1:]).all() and lengths[0] > 0
    cosines = scene.directions @ scene.directions.T / (lengths[:, None] * lengths).clamp(min=1e-9)
    assert (cosines[0, 1:].abs() < 1e-3).all()
    wall = scene.wall(range(3, 6), 16, 1.0)
    assert wall.shape == (3, 3, 16, 16) and not torch.equal(wall[0], wall[1])
    alone = scene.image(View(*scene.start, fov=scene.fov, height=16, width=16), Style(), scene.condition(Choice(4)))
    torch.testing.assert_close(wall[1], alone)


def test_shape_and_texture_apart(tmp_path: Path) -> None:
    scene = scene_of(gan_run(tmp_path / "run", texture_latent_size=4, texture_layers=1))
    assert isinstance(scene, GeneratorScene) and scene.groups == ("shape", "texture")
    points = torch.rand(64, 3) - 0.5

    def values(**choice: object) -> tuple[torch.Tensor, torch.Tensor]:
        condition = scene.condition(Choice(**choice))
        with torch.no_grad():
            return scene.distance(points, condition), scene.field.rgb(
                points, condition, torch.zeros(64, dtype=torch.int64)
            )

    zeros = (0.0,) * (SLIDERS - 1)
    for choice in ({"texture_seed": 1}, {"moves": (0.0, *zeros, 2.0, *zeros)}):
        assert torch.equal(values()[0], values(**choice)[0]) and not torch.equal(values()[1], values(**choice)[1])
    for choice in ({"seed": 1}, {"moves": (2.0, *zeros, 0.0, *zeros)}):
        assert not torch.equal(values()[0], values(**choice)[0])


# ---------------------------------------------------------------------------------------------------- paths and runs


def test_what_a_path_means(paths: dict[str, Path], tmp_path: Path) -> None:
    assert [find_result(path).kind for path in paths.values()] == ["gan", "gan", "nerf", "sdf", "mesh"]
    checkpoint = paths["gan"] / "checkpoints" / "step-0000005"
    assert find_result(paths["gan"]) == find_result(checkpoint)
    assert find_result(paths["sdf"]) == find_result(paths["sdf"] / "model.safetensors")
    assert [scene_of(paths[kind]).title for kind in ("gan", "sdf", "mesh")] == ["gan, step 5", "sdf", "ball.glb"]
    left = mesh_file(tmp_path / "fit", "mesh.glb")
    assert find_result(left.parent) == find_result(left)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no such run"),
        (lambda path: path.mkdir(), "expected a run folder"),
        (lambda path: path.write_text("x"), "expected a run folder"),
        (lambda path: save_checkpoint(path, 1, {}, {"kind": "sdf"}), "there is no model.safetensors yet"),
        (
            lambda path: save_checkpoint(path, 1, {}, {"kind": "other"}),
            "nothing to view in a checkpoint of kind 'other'",
        ),
    ],
)
def test_what_cannot_be_viewed(tmp_path: Path, make: object, words: str) -> None:
    path = tmp_path / "run"
    make(path)  # type: ignore[operator]
    with pytest.raises(UserError, match=words) as error:
        find_result(path)
    assert str(path) in str(error.value)


def test_no_such_mesh(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.stl: cannot be read"):
        find_result(tmp_path / "none.stl")


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    run = gan_run(tmp_path / "run")
    first = find_result(run)
    assert find_result(run) == first
    config = json.loads((first.path / "state.json").read_text())["config"]
    tensors = pack_module(make_generator(GanConfig.from_json(config, run)), "ema")
    save_checkpoint(run, 10, tensors, {"kind": "gan", "config": config})
    assert find_result(run) != first and scene_of(run).title == "run, step 10"


def test_numbers_and_samples_of_a_run(tmp_path: Path) -> None:
    progress = Progress(tmp_path)
    assert not progress.exists and progress.curves() == {} and progress.newest_sample() is None
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": 2.0, "warning": "w", "nan": null}\n{"step": 2, "loss": 1.5}\n{"step": 3, "lo')
    assert progress.exists
    assert {name: values.tolist() for name, values in progress.curves().items()} == {"loss": [[1, 2], [2.0, 1.5]]}
    with file.open("a") as more:
        more.write('ss": 1.0}\nnonsense\n[]\n{"step": 4, "psnr": 20}\n' + "[" * 100_000 + "\n")
        more.write(f'{{"step": 5, "psnr": 1{"0" * 400}}}\n{{"step": 1{"0" * 400}, "psnr": 1}}\n')
    assert progress.curves()["loss"].tolist() == [[1, 2, 3], [2.0, 1.5, 1.0]]
    assert progress.curves()["psnr"].tolist() == [[4], [20]]
    file.write_text('{"step": 1, "loss": 9}\n')  # another run, in the same place
    assert progress.curves()["loss"].tolist() == [[1], [9]]
    file.write_text("".join(f'{{"step": {step}, "loss": {step}}}\n' for step in range(5000)))
    assert 400 < progress.curves(500)["loss"].shape[1] < 600
    (tmp_path / "samples").mkdir()
    for name in ("real.png", "step-0000010.png", "step-0000009.png"):
        (tmp_path / "samples" / name).touch()
    newest = progress.newest_sample()
    assert newest is not None and newest.name == "step-0000010.png"


def test_pictures_are_bytes(paths: dict[str, Path]) -> None:
    assert to_bytes(scene_of(paths["mesh"]).image(VIEW, Style())).shape == (24, 32, 3)
