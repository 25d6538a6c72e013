"""Cameras that are a little wrong: rays follow their corrections, these are found, saved, written, and used."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import posed
from nerf_cameras import camera_errors, fitted, moved
from sdfgan.cli import main
from sdfgan.cli.flags import ExtractMeshConfig
from sdfgan.cli.single import SceneRun
from sdfgan.data.scenes import Scene, load_scene, write_cameras
from sdfgan.errors import UserError
from sdfgan.nerf import NerfConfig, train
from sdfgan.nerf.cameras import CameraCorrections, turned
from sdfgan.nerf.job import NerfJob
from sdfgan.nerf.marching import render_packed
from sdfgan.nerf.models import MarchedModel, SurfaceModel, make_model
from sdfgan.ops.pixels import PixelSamples
from sdfgan.training.checkpoint import Saved
from sdfgan.volume import Rays

TINY: dict[str, Any] = {
    "device": "cpu", "hash_table": 12, "hash_finest": 32, "hash_levels": 4, "grid_resolution": 16, "march_steps": 48,
    "samples": 6000, "rays": 512, "chunk_size": 256, "width": 16, "warmup_steps": 5, "refine_cameras": True,
}  # fmt: skip
CLASSIC: dict[str, Any] = {
    "device": "cpu", "width": 32, "layers": 2, "octaves": 5, "coarse_samples": 12, "fine_samples": 12, "rays": 128,
    "chunk_size": 64, "warmup_steps": 4, "learning_rate": 2e-2, "refine_cameras": True,
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "fast": {**TINY, "learning_rate": 5e-2},
    "nerf": CLASSIC,
    "surface": {**TINY, "learning_rate": 2e-2, "coarse_levels": 2},
}
VIEWS, SIDE = 16, 40


def some_corrections(count: int = 5) -> CameraCorrections:
    random = torch.Generator().manual_seed(0)
    corrections = CameraCorrections(torch.randn(count, 3, generator=random)).double()
    with torch.no_grad():
        corrections.free.copy_(0.3 * torch.randn(count, 6, generator=random))
    return corrections


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_rays_are_differentiable_in_the_corrections(share: float) -> None:
    """In float64 against finite differences, also where nothing is corrected yet."""
    corrections, random = some_corrections(), torch.Generator().manual_seed(1)
    origins, ways = torch.randn(2, 12, 3, generator=random).double()
    pixels = PixelSamples(origins, torch.nn.functional.normalize(ways, dim=1), origins[:, 0], None)
    image = torch.arange(12) % 5

    def rays(free: Tensor) -> tuple[Tensor, Tensor]:
        found: Any = torch.func.functional_call(corrections, {"free": free}, (pixels, image))
        return found.origins, found.directions

    assert torch.autograd.gradcheck(rays, (share * corrections.free.detach()).requires_grad_())


def test_corrections_are_rotations_without_a_common_motion() -> None:
    corrections, random = some_corrections(8), torch.Generator().manual_seed(1)
    turn, move = corrections.values.detach().split(3, 1)
    matrices = torch.zeros(8, 3, 3).double()
    for (row, column), sign, axis in (((2, 1), 1, 0), ((0, 2), 1, 1), ((1, 0), 1, 2)):
        matrices[:, row, column], matrices[:, column, row] = sign * turn[:, axis], -sign * turn[:, axis]
    vectors = torch.randn(8, 3, generator=random).double()
    exact = (torch.linalg.matrix_exp(matrices) @ vectors[:, :, None])[:, :, 0]
    torch.testing.assert_close(turned(vectors, turn), exact)
    positions = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).double()
    assert turn.norm(dim=1).min() > 0.1
    for axis in torch.eye(3).double():
        assert abs((move @ axis).sum()) < 1e-5
        assert abs((turn @ axis).sum() + (move * torch.linalg.cross(axis.expand(8, 3), positions)).sum()) < 1e-5
    assert abs((move * positions).sum()) < 1e-5
    assert some_corrections(1).values.abs().max() < 1e-6  # nothing else says where a single camera is


@pytest.mark.parametrize(("kind", "bounded"), [("fast", True), ("fast", False), ("surface", True), ("surface", False)])
@pytest.mark.parametrize("keep", [True, False])
def test_what_rays_see_is_differentiable_in_them(kind: Any, bounded: bool, keep: bool) -> None:
    """As of samples at the distances where the march has found them, by autograd and by finite differences."""
    torch.manual_seed(0)
    model = make_model(NerfConfig(model=kind, **TINY).resolved(), bounded)
    assert isinstance(model, MarchedModel)
    grid = model.surface.grid if isinstance(model, SurfaceModel) else model.field.grid
    with torch.no_grad():
        grid.table.normal_(std=0.1)
    random = torch.Generator().manual_seed(0)
    origins = torch.tensor([0.0, 0, 2]) + 0.1 * torch.randn(200, 3, generator=random)
    directions = torch.nn.functional.normalize(0.3 * torch.randn(200, 3, generator=random) - origins, dim=1)
    near, far, black = torch.full((200,), 0.8), torch.full((200,), 3.4), torch.zeros(3)
    rays = Rays(origins.requires_grad_(), directions.requires_grad_(), near, far)
    packed = model.occupancy.march(rays, torch.full((200,), 0.5), model.field, keep=keep)
    weights = torch.randn(200, 3, generator=random)

    def seen(origins: Tensor, directions: Tensor) -> Tensor:
        ray = torch.repeat_interleave(packed.offsets.diff())
        points = origins[ray] + packed.distances[:, None] * directions[ray]
        places = packed.places._replace(points=points, directions=directions[ray], known=None)
        return (weights * render_packed(packed._replace(places=places), model.field, black).rgb).sum()

    found = torch.autograd.grad((weights * render_packed(packed, model.field, black).rgb).sum(), rays[:2])
    plain = torch.autograd.grad(seen(*rays[:2]), rays[:2])
    for which in (0, 1):
        torch.testing.assert_close(found[which], plain[which], rtol=1e-3, atol=1e-4 * plain[which].norm().item())
        way = plain[which] / plain[which].norm()
        with torch.no_grad():
            low, high = (
                seen(*(x + sign * 3e-3 * way if i == which else x for i, x in enumerate(rays[:2]))) for sign in (-1, 1)
            )
        jumps = 0.03 if kind == "fast" else 0.15  # of normals, where another unit is active, autograd knows nothing
        assert (high - low).item() / 6e-3 == pytest.approx(plain[which].norm().item(), rel=jumps)


@pytest.fixture(scope="module")
def ball(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A scene whose training cameras are off: turned by 1.5 degrees and moved by 2 % of their distance."""
    return load_scene(posed.blender_scene(tmp_path_factory.mktemp("scenes") / "ball", train=VIEWS, side=SIDE))


def wrong(scene: Scene) -> Scene:
    return scene._replace(train=moved(scene.train, degrees=1.5, share=0.02))


@pytest.mark.parametrize("model", ["fast", "nerf", "surface"])
def test_cameras_are_found(ball: Scene, model: Any) -> None:
    """Where the scene is in the images, that is: a turn and a move that look alike on a ball are told apart less."""
    true, focal = ball.train.cameras.camera_to_world, ball.train.cameras.intrinsics[:, 0]
    data, psnr, pixels = wrong(ball), [], []
    given = data.train.cameras.camera_to_world
    for refine in (False, True):
        options = {**OPTIONS[model], "refine_cameras": refine}
        job = NerfJob(NerfConfig(model=model, steps=120, **options).resolved(), data)
        try:
            logs = [job.step() for _ in range(120)]
        finally:
            job.close()
        psnr.append(sum(log["psnr"] for log in logs[-10:]) / 10)
        poses = job.cameras.poses(given) if refine else given
        pixels.append(camera_errors(poses, true, focal)["pixels"])
        assert ("camera_rotation" in logs[-1]) == ("cameras.free" in job.state()[0]) == refine
    assert pixels[1] < 0.6 * pixels[0] and psnr[1] > psnr[0] + 1
    assert 0.3 < logs[-1]["camera_rotation"] < 3 and 0 < logs[-1]["camera_translation"] < 0.2


@pytest.mark.parametrize("model", ["fast", "surface"])
def test_a_checkpoint_goes_on_exactly(ball: Scene, model: Any) -> None:
    config, states = NerfConfig(model=model, steps=12, **OPTIONS[model]).resolved(), []
    first = NerfJob(config, wrong(ball))
    for _ in range(12):
        if first.steps_done == 7:
            tensors, state = first.state()
            saved = Saved(Path("here"), {name: x.clone() for name, x in tensors.items()}, {**state, "step": 7})
        first.step()
    first.close()
    again = NerfJob(config, wrong(ball))
    again.load_state(saved)
    for _ in range(5):
        again.step()
    again.close()
    states = [job.state()[0] for job in (first, again)]
    assert states[0].keys() == states[1].keys() and first.cameras.free.abs().max() > 0
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_corrected_cameras_are_written_and_used(
    ball: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the run folder, for the scene's; and where the photographs make a texture."""
    import sdfgan.nerf.job as jobs

    used: list[Scene] = []
    monkeypatch.setattr(jobs, "scene_mesh", lambda surface, cells, scene, *rest: used.append(scene) or surface_box())
    run = tmp_path / "run"
    config = NerfConfig(data=ball.path, model="surface", steps=20, output_dir=run, **OPTIONS["surface"])
    summary = train(dataclasses.replace(config, video_frames=0, evaluate_interval=0))
    assert summary["cameras"] == str(run / "transforms_train.json")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["camera_rotation"] > 0 and lines[-1]["camera_translation"] > 0
    copy = shutil.copytree(ball.path, tmp_path / "copy")
    shutil.copy(run / "transforms_train.json", copy)
    written, given = load_scene(copy), ball.train.cameras.camera_to_world
    poses = written.train.cameras.camera_to_world
    assert (poses - given).abs().max() > 1e-4 and written.notes == () and written.train.names == ball.train.names
    assert torch.equal(written.val.cameras.camera_to_world, ball.val.cameras.camera_to_world)
    torch.testing.assert_close(written.train.cameras.intrinsics, ball.train.cameras.intrinsics)
    flags = ExtractMeshConfig(run=run)
    for scene in (used[0], SceneRun.load(flags).photographed()):
        torch.testing.assert_close(scene.train.cameras.camera_to_world, poses, atol=1e-6, rtol=0)
    fewer = posed.blender_scene(tmp_path / "fewer", train=12)
    capsys.readouterr()
    asked = ["extract-mesh", str(run), "--data", str(fewer), "--mesh-resolution=16", "--texture-resolution=64"]
    assert main(asked) == 2
    said = f"has corrections of {VIEWS} cameras, and the scene has 12"
    assert capsys.readouterr().err.strip().endswith(said)


def surface_box() -> Any:
    import trimesh

    return trimesh.creation.box()


@pytest.mark.parametrize(
    "lens",
    [
        {},
        {"k1": 0.1, "k2": 0.02, "p1": 0.01},
        {"camera_model": "FULL_OPENCV", "k1": 0.1, "k4": 0.2, "k5": 0.1},
        {"distortion_params": [0.1, 0.02, 0.0, 0.01, 0.0, 0.003]},
        {"camera_model": "OPENCV_FISHEYE", "k1": 0.1, "k4": 0.01},
    ],
)
def test_cameras_that_are_written_are_those_that_are_read(tmp_path: Path, lens: dict[str, Any]) -> None:
    """With splits, masks and lenses, of one camera and of several."""
    for several in (False, True):
        folder = tmp_path / str(several)
        frames = posed.write_frames(folder, "images", posed.cameras(9))
        camera = {"fl_x": 27.0, "cx": 9.0, **lens}
        for index, frame in enumerate(frames):
            frame |= {**camera, "fl_x": 27.0 + index} if several else {}
        frames[2]["mask_path"] = "images/r_0.png"
        values = {**({} if several else camera), "frames": frames, "test_filenames": [frames[3]["file_path"]]}
        (folder / "transforms.json").write_text(json.dumps(values))
        before = load_scene(folder)
        (tmp_path / "run").mkdir(exist_ok=True)
        shutil.copy(write_cameras(before, tmp_path / "run"), folder)
        after = load_scene(folder)
        assert after.notes == () and (before.val, after.val) == (None, None)
        for one, other in ((before.train, after.train), (before.test, after.test)):
            assert one.names == other.names
            for part, same in zip(one.cameras, other.cameras, strict=True):
                assert (part is None) == (same is None)
                if part is not None:
                    torch.testing.assert_close(part, same, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "mip-nerf"}, "--refine-cameras is for --model fast or surface or nerf, got mip-nerf"),
        ({"model": "ref-nerf"}, "--refine-cameras is for --model fast or surface or nerf, got ref-nerf"),
        ({"model": "surface", "surface_steps": 5}, "--surface-steps must be 0 with --refine-cameras, got 5"),
        ({"model": "nerf", "visual_hull": True}, "--visual-hull must be False with --refine-cameras: it needs exact"),
        ({"camera_learning_rate": 0.0}, "--camera-learning-rate must be positive, got 0.0"),
    ],
)
def test_what_it_does_not_go_with_is_named(ball: Scene, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        train(NerfConfig(data=ball.path, dry_run=True, device="cpu", refine_cameras=True, **changes))
    assert "\n" not in str(raised.value)


def test_the_similarity_that_fits_is_found() -> None:
    """What the tests above, and `benchmarks/nerf_cameras.py`, measure by."""
    true = posed.cameras(6).double()
    turn = torch.tensor([0.3, -0.2, 0.5]).double()
    axes = turned(true[:, :, :3].mT, turn.expand(6, 1, 3)).mT
    position = 1.3 * turned(true[:, :, 3], turn.expand(6, 3)) + torch.tensor([0.1, 0.2, -0.3]).double()
    elsewhere = torch.cat((axes, position[:, :, None]), 2)
    fit = fitted(elsewhere, true)
    torch.testing.assert_close(fit(elsewhere), true)
    torch.testing.assert_close(fit.inverse()(true), elsewhere)
    errors = camera_errors(elsewhere, true, torch.full((6,), 100.0))
    assert max(errors.values()) < 1e-5
