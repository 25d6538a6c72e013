"""A surface from photographs, end to end: it is learnt, meshed, traced, and continued; its options and its errors."""

from __future__ import annotations

import dataclasses
import json
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

import posed
from sdfgan.cameras import orbit_camera, rotate_axes
from sdfgan.cli import main
from sdfgan.data.scenes import load_scene
from sdfgan.errors import UserError
from sdfgan.images import to_srgb
from sdfgan.meshes import without_floaters
from sdfgan.metrics import psnr
from sdfgan.nerf import NerfConfig, load_model, load_surface, train
from sdfgan.nerf.job import NerfJob
from sdfgan.nerf.models import SurfaceModel, make_model
from sdfgan.nerf.report import SceneRenderer
from sdfgan.ops import pixel_views
from sdfgan.raycast import Lighting, render

TINY: dict[str, Any] = {
    "device": "cpu", "model": "surface", "hash_table": 12, "hash_finest": 32, "hash_levels": 4, "grid_resolution": 16,
    "march_steps": 64, "samples": 6000, "rays": 512, "chunk_size": 256, "width": 16, "warmup_steps": 5,
    "learning_rate": 1e-2, "coarse_levels": 2, "thickness_final": 0.005,
}  # fmt: skip
RADIUS = posed.RADIUS / 1.5  # in the cube


@pytest.fixture(scope="module")
def finished(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run from beginning to end, in the words of the command line."""
    path = tmp_path_factory.mktemp("runs") / "ball"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    flags += ["--steps=100", "--evaluate-interval=60", "--video-frames=2", "--mesh-resolution=32"]
    assert main(["train-nerf", "--data", str(scene), "--output-dir", str(path), *flags, "--render-normal"]) == 0
    return path


def test_a_run_learns_the_ball(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["model"] == "surface" and summary["scores"]["val"]["psnr"] > 20
    assert {Path(file).name for file in summary["videos"]} == {"orbit.mp4", "orbit-normals.mp4"}
    (mesh,) = trimesh.load_scene(finished / "mesh.glb").geometry.values()
    assert mesh.is_watertight and mesh.volume > 0  # closed, and seen from outside
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - posed.RADIUS).mean() < 0.05 * posed.RADIUS  # half a pixel
    colours = to_srgb(mesh.visual.vertex_attributes["color"][:, :3] / 255)
    assert np.abs(colours - (mesh.vertices / posed.RADIUS / 2 + 0.5)).mean() < 0.1
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert {"eikonal", "curvature", "mask"} <= lines[0].keys()


def test_commands_take_the_run(finished: Path, tmp_path: Path) -> None:
    mesh = ["extract-mesh", str(finished), "--mesh-resolution=24", "--format=ply", f"--output-dir={tmp_path}"]
    assert main(mesh) == 0 and trimesh.load(tmp_path / "mesh.ply").is_watertight
    image = tmp_path / "image.png"
    assert main(["render", str(finished), "--mode=seeds", "--resolution=32", f"--output={image}"]) == 0
    assert image.stat().st_size > 0


def test_what_is_traced_is_what_the_volume_shows(finished: Path) -> None:
    field, (model, _) = load_surface(finished), load_model(finished)
    axes, side, fov = rotate_axes((torch.tensor([0.2, -0.4]), torch.tensor([0.5, 2.5]))), 48, math.radians(35)
    cameras, focal = orbit_camera(axes, fov), side / 2 / math.tan(fov / 2)
    intrinsics = torch.tensor([[focal, focal, side / 2, side / 2]] * 2)
    views = pixel_views(cameras, intrinsics, torch.full((2, 2), side))
    renderer = SceneRenderer(model, torch.ones(3), 1000)
    volume = [renderer.look(views, index) for index in range(2)]
    light, eyes = Lighting(ambient=1.0, headlight=0.0), cameras[..., 3]
    traced = render(
        sdf=field, axes=axes, resolution=side, fov=fov, light=light, background=(1.0, 1.0, 1.0), condition=eyes
    )
    for seen, rgb, alpha in zip(volume, traced.rgb, traced.alpha, strict=True):
        solid = (alpha[0] >= 1) & (seen.opacity[0] > 0.99)  # at silhouettes one has exact edges, the other a ray
        assert solid.sum() > 400 and psnr(seen.rgb, rgb, solid) > 30
        assert (alpha - seen.opacity).abs().mean() < 0.03
    middle = traced.depth[0, 0, side // 2, side // 2].item()
    assert middle == pytest.approx(1 / math.tan(fov / 2) - RADIUS, abs=0.05)
    value, gradient = field.sdf_and_gradient(torch.tensor([[0.0, 0.9, 0.0]]))
    assert value.item() == pytest.approx(0.9 - RADIUS, abs=0.1) and gradient[0, 1] > 0.7
    assert not any(parameter.requires_grad for parameter in field.parameters())


@pytest.mark.parametrize("density", ["neus", "volsdf"])
@pytest.mark.parametrize("bounded", [True, False])
def test_every_option_trains(scene: Path, tmp_path: Path, density: Any, bounded: bool) -> None:
    options = TINY | {"opacity_weight": 1e-3, "curvature_weight": 0.0 if bounded else 0.1, "mask_weight": 1.0}
    options["precision"] = "fp32" if bounded else "bf16"
    config = NerfConfig(data=scene, surface_density=density, steps=60, **options).resolved()
    data = load_scene(scene)._replace(bounded=bounded, has_alpha=bounded)
    job = NerfJob(config, data)
    try:
        logs = [job.step() for _ in range(60)]
        seen = job.renderer.look(data.train.cameras, 0, normals=True)
    finally:
        job.close()
    assert all(math.isfinite(value) for log in logs for value in log.values())
    assert ("mask" in logs[0]) == bounded and ("curvature" in logs[0]) != bounded
    first, last = (sum(log["psnr"] for log in part) / 10 for part in (logs[:10], logs[-10:]))
    assert last > first + 2
    assert isinstance(job.model, SurfaceModel) and (job.model.beyond is None) == bounded
    assert job.model.volume.beta.item() < 0.01 and int(job.model.surface.active) == 4
    assert seen.normals is not None and seen.normals.isfinite().all() and seen.rgb.isfinite().all()


def test_directions_come_last(finished: Path) -> None:
    """Until all levels are in use, colours know of the direction no more than how far the normal faces it."""
    model, config = load_model(finished)
    assert isinstance(model, SurfaceModel)
    field, random = model.surface, torch.Generator().manual_seed(0)
    assert field.view_dependence == pytest.approx((99 / 100 - 0.5) / 0.5)  # as in the last of 100 steps
    points = 0.6 * torch.nn.functional.normalize(torch.randn(50, 3, generator=random), dim=1)
    normals = torch.nn.functional.normalize(field.sdf_and_gradient(points)[1].detach(), dim=1)
    one_way = torch.nn.functional.normalize(torch.randn(50, 3, generator=random) - 2 * normals, dim=1)
    other = 2 * (one_way * normals).sum(1, keepdim=True) * normals - one_way  # turned about the normal by half
    model.before_step(config.steps // 2, random)
    assert field.view_dependence == 0.0
    with torch.no_grad():
        assert torch.allclose(field.seen(points, one_way).rgb, field.seen(points, other).rgb, atol=1e-5)
        model.continued(config.steps)
        assert not torch.allclose(field.seen(points, one_way).rgb, field.seen(points, other).rgb, atol=1e-3)


@pytest.mark.parametrize("bounded", [True, False])
def test_last_steps_trace_the_surface(tmp_path: Path, bounded: bool) -> None:
    """They go on where the volume was left, and see it as well: photographs whose edges cover pixels in part."""
    scene = posed.blender_scene(tmp_path, side=4 * posed.SIDE)
    config = NerfConfig(data=scene, surface_steps=20, steps=80, **TINY).resolved()
    data = load_scene(scene, image_scale=0.25)._replace(bounded=bounded, has_alpha=bounded)
    job = NerfJob(config, data)
    try:
        logs = [job.step() for _ in range(80)]
    finally:
        job.close()
    assert all(math.isfinite(value) for log in logs for value in log.values())
    assert logs[0].keys() == logs[-1].keys() and logs[-1]["gradient_norm"] > 0
    before, after = (sum(log["psnr"] for log in part) / 10 for part in (logs[50:60], logs[70:]))
    assert after > before


def test_an_unbounded_scene_is_seen_in_front_of_what_is_behind_it(scene: Path) -> None:
    """Opaque in front, the depth is the sphere's; beside it, that of the volume beyond, behind the cube."""
    job = NerfJob(NerfConfig(data=scene, steps=100, **TINY).resolved(), load_scene(scene)._replace(bounded=False))
    job.close()
    model = job.model
    assert isinstance(model, SurfaceModel) and model.beyond is not None
    model.volume.beta.fill_(0.002)
    with torch.no_grad():
        model.beyond.radiance.density_net[-1].bias[0] = 3.0
    view = load_scene(scene).train.cameras
    seen = SceneRenderer(model, torch.zeros(3), 1000).look(view, 0, normals=True)
    middle, distance = posed.SIDE // 2, posed.DISTANCE / 1.5
    assert seen.depth[0, middle, middle].item() == pytest.approx(distance - 0.4, abs=0.03)
    assert seen.opacity.min() > 0.99 and seen.depth[0, 0, 0] > distance - 1


@pytest.mark.parametrize(("density", "outside"), [("neus", 0.0), ("volsdf", 3.7)])
def test_silhouettes_of_the_volume_are_those_of_the_surface(density: Any, outside: float) -> None:
    """Of an untrained sphere; VolSDF's are wider by some of its thickness, though steps are longer than that."""
    config = NerfConfig(model="surface", surface_density=density, device="cpu", hash_table=8, grid_resolution=32)
    model = make_model(config.resolved(), bounded=True)
    assert isinstance(model, SurfaceModel)
    with torch.no_grad():
        model.surface.distance_net[-1].weight.zero_()
    thickness, random = 0.002, torch.Generator().manual_seed(0)
    model.volume.beta.fill_(thickness)
    model.occupancy.refresh(partial(model.volume.densest, reach=2 / 32), random)
    side, fov = 100, math.radians(25)
    focal = side / 2 / math.tan(fov / 2)
    views = pixel_views(
        orbit_camera(rotate_axes(([0.3], [0.5])), fov),
        torch.tensor([[focal, focal, side / 2, side / 2]]),
        torch.full((1, 2), side),
    )
    opacity = SceneRenderer(model, torch.ones(3), 2000).look(views, 0).opacity
    radius = math.sin(math.atan(math.sqrt(opacity.sum().item() / math.pi) / focal)) / math.tan(fov / 2)
    assert radius == pytest.approx(math.sqrt(0.7**2 - 0.1**2) + outside * thickness, abs=1e-3)  # a 20th of a pixel


def test_floaters_are_removed_and_counted() -> None:
    ball, hole = trimesh.creation.icosphere(3), trimesh.creation.icosphere(2, radius=0.5)
    hole.invert()
    small = trimesh.creation.icosphere(2, radius=0.05).apply_translation([2, 0, 0])
    large = trimesh.creation.icosphere(2, radius=0.5).apply_translation([0, 3, 0])
    parts = [small, ball, hole, large]
    for part in parts:
        part.visual.vertex_colors = np.full((len(part.vertices), 4), 77, np.uint8)
    kept, removed = without_floaters(trimesh.util.concatenate(parts))
    assert removed == 2 and kept.volume == pytest.approx(ball.volume + large.volume)
    assert (kept.visual.vertex_colors == 77).all() and kept.is_watertight
    assert without_floaters(ball) == (ball, 0)


def test_a_mesh_says_how_many_floaters_it_lost(
    finished: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdfgan.fields.surface_grid import SurfaceGrid
    from sdfgan.nerf.mesh import scene_mesh

    field = load_surface(finished)

    def with_another(self: SurfaceGrid, points: torch.Tensor, *_: Any) -> torch.Tensor:
        away = torch.tensor([0.0, 0.9, 0.0])
        return torch.minimum(points.norm(dim=1) - 0.5, (points - away).norm(dim=1) - 0.045)

    monkeypatch.setattr(SurfaceGrid, "sdf", with_another)
    to_file = torch.cat((torch.eye(3), torch.zeros(3, 1)), 1).double()
    mesh = scene_mesh(field, 48, SimpleNamespace(to_file=to_file))  # type: ignore[arg-type]
    assert "mesh: 1 of 2 parts removed" in capsys.readouterr().out and mesh.bounds[1, 1] < 0.55


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"thickness_final": 0.2}, "--thickness-final must not be more than --thickness, got 0.2 and 0.1"),
        ({"coarse_levels": 5}, "--coarse-levels must not be more than --hash-levels, got 5 and 4"),
        ({"surface_steps": 9, "steps": 8}, "--surface-steps must not be more than --steps, got 9 and 8"),
        ({"sphere_radius": 2.0}, "--sphere-radius must be at most 1, got 2.0"),
        ({"coarse_share": 1.5}, "--coarse-share must be between 0 and 1, got 1.5"),
        ({"mesh_level": 3.0}, "--mesh-level is for --model fast or nerf or .*, got surface"),
        ({"octaves": 8}, "--octaves is for --model nerf or .*, got surface"),
        ({"model": "fast"}, "--thickness-final is for --model surface, got fast"),
    ],
)
def test_bad_settings_are_named(scene: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        train(NerfConfig(**{"data": scene, "dry_run": True, **TINY, **changes}))


def test_only_runs_of_surfaces_have_one(scene: Path, tmp_path: Path) -> None:
    fast = {name: value for name, value in TINY.items() if name not in ("model", "coarse_levels", "thickness_final")}
    config = NerfConfig(data=scene, output_dir=tmp_path / "fast", steps=1, mesh_resolution=0, video_frames=0, **fast)
    train(dataclasses.replace(config, evaluate_interval=0))
    with pytest.raises(UserError, match=f"{tmp_path / 'fast'}: a run of --model fast, expected one of --model surface"):
        load_surface(tmp_path / "fast")
    with pytest.raises(UserError, match="nothing: "):
        load_surface(tmp_path / "nothing")
