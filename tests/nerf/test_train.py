"""Learning a scene end to end: every model learns, a run continues exactly, stops when asked, and can be looked at."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import posed
from sdfgan.cameras import to_blender
from sdfgan.cli import main
from sdfgan.data.scenes import load_scene
from sdfgan.errors import UserError
from sdfgan.nerf import NerfConfig, load_model, train
from sdfgan.nerf.job import NerfJob
from sdfgan.nerf.models import make_model
from sdfgan.nerf.objective import Batch, normal_losses
from sdfgan.ops import sample_pixels
from sdfgan.training.checkpoint import Saved, load_checkpoint, resolve_checkpoint
from sdfgan.training.ranks import Ranks
from sdfgan.volume import Rays

FAST: dict[str, Any] = {
    "device": "cpu", "hash_table": 12, "hash_finest": 32, "hash_levels": 4, "grid_resolution": 16, "march_steps": 48,
    "samples": 6000, "rays": 512, "chunk_size": 256, "width": 16, "warmup_steps": 5, "learning_rate": 5e-2,
}  # fmt: skip
CLASSIC: dict[str, Any] = {
    "device": "cpu", "width": 32, "layers": 2, "octaves": 5,
    "coarse_samples": 12, "fine_samples": 12, "rays": 128, "chunk_size": 64, "warmup_steps": 4, "learning_rate": 2e-2,
}  # fmt: skip
PROPOSALS: dict[str, Any] = {"proposal_width": 16, "proposal_layers": 2}
NO_RESULTS: dict[str, Any] = {"video_frames": 0, "mesh_resolution": 0, "evaluate_interval": 0}


@pytest.fixture(scope="module")
def finished(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run from beginning to end, in the words of the command line."""
    path = tmp_path_factory.mktemp("runs") / "ball"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in FAST.items()]
    flags += ["--steps=240", "--evaluate-interval=100", "--checkpoint-interval=100", "--video-frames=4"]
    flags += ["--mesh-resolution=32", "--render-depth", "--render-normal", "--render-test"]
    assert main(["train-nerf", "--data", str(scene), "--output-dir", str(path), *flags]) == 0
    return path


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(resolve_checkpoint(run))[0]


def test_a_run_learns_and_leaves_everything_it_promises(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["scores"]["val"]["psnr"] > 20 and summary["scores"]["val"]["ssim"] > 0.8
    assert "test" not in summary["scores"] and summary["views"] == {"train": 8, "val": 2}
    for name in ("config.json", "views.png", "mesh.glb", "samples/step-0000100.png"):
        assert (finished / name).stat().st_size > 0, name
    videos = {Path(file).name for file in summary["videos"]}
    assert videos == {f"{path}{show}.mp4" for path in ("orbit", "test") for show in ("", "-depth", "-normals")}
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "psnr" in line] == list(range(10, 241, 10))
    assert [line["step"] for line in lines if "validation/psnr" in line] == [100, 200]
    rays = [line["rays"] for line in lines if "rays" in line]
    assert rays[-1] > rays[0]  # as emptiness is found, more of them fit


def test_the_mesh_is_the_ball_in_the_units_of_the_file(finished: Path) -> None:
    mesh = trimesh.load(finished / "mesh.glb", force="mesh")
    distances = torch.from_numpy(mesh.vertices).norm(dim=1)
    assert distances.median().item() == pytest.approx(posed.RADIUS, abs=0.25)


def test_depth_and_normals_are_those_of_the_ball(finished: Path, scene: Path) -> None:
    from sdfgan.nerf.report import SceneRenderer

    model, _ = load_model(finished)
    views = load_scene(scene).train
    seen = SceneRenderer(model, torch.ones(3), 300).look(views.cameras, 0, normals=True)
    middle = posed.SIDE // 2
    assert seen.normals is not None
    assert seen.depth[0, middle, middle].item() == pytest.approx((posed.DISTANCE - posed.RADIUS) / 1.5, abs=0.2)
    towards = seen.normals[:, middle, middle] @ views.cameras.camera_to_world[0, :, 2]
    assert towards > 0.5
    assert seen.opacity[0, 0, 0] < 0.3 and seen.opacity[0, middle, middle] > 0.9


@pytest.mark.parametrize("model", ["nerf", "mip-nerf", "mip-nerf-360", "ref-nerf"])
@pytest.mark.parametrize("bounded", [True, False])
def test_classic_models_learn(scene: Path, tmp_path: Path, model: Any, bounded: bool) -> None:
    options = CLASSIC | (PROPOSALS if model in ("mip-nerf-360", "ref-nerf") else {})
    config = NerfConfig(data=scene, model=model, steps=60, prop_normal=model == "ref-nerf", **options).resolved()
    data = load_scene(scene)
    trainer = NerfJob(config, data._replace(bounded=bounded))
    try:
        logs = [trainer.step() for _ in range(60 if bounded else 4)]
    finally:
        trainer.close()
    assert all(math.isfinite(value) for log in logs for value in log.values())
    if bounded:
        first, last = (sum(log["psnr"] for log in part) / 10 for part in (logs[:10], logs[-10:]))
        assert last > first + 3
    expected = {"nerf": set(), "mip-nerf": set(), "mip-nerf-360": {"interlevel", "distortion"}}
    known = expected.get(model, {"interlevel", "distortion", "normals", "orientation"})
    assert known == logs[-1].keys() & {"interlevel", "distortion", "normals", "orientation"}
    named = {name for name, p in trainer.model.named_parameters()}
    assert any(name.startswith("coarse") for name in named) == (model != "mip-nerf")


def test_predicted_normals_are_those_of_the_ball(scene: Path) -> None:
    """They learn from the density's, which do not learn from them, in a hundred steps."""
    config = NerfConfig(data=scene, model="ref-nerf", steps=100, **CLASSIC, **PROPOSALS).resolved()
    data = load_scene(scene)
    trainer = NerfJob(config, data)
    try:
        for _ in range(100):
            trainer.step()
        seen = trainer.renderer.look(data.val.cameras, 0, normals=True)
    finally:
        trainer.close()
    rays = sample_pixels(data.val.cameras, torch.arange(posed.SIDE**2))
    radius = posed.RADIUS / 1.5
    middle = -(rays.origins * rays.directions).sum(1)
    square = radius**2 - (rays.origins.square().sum(1) - middle**2)
    true = (rays.origins + (middle - square.clamp(min=0).sqrt())[:, None] * rays.directions) / radius
    shown = (square > 0) & (seen.opacity.flatten() > 0.9)
    cosine = (seen.normals.flatten(1).T * true).sum(1)[shown]
    assert len(cosine) > 40 and cosine.clamp(-1, 1).acos().rad2deg().mean() < 35


def test_the_density_does_not_learn_from_the_second_loss_on_normals(
    scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it becomes thinner, for its weights are less then."""
    monkeypatch.setattr("sdfgan.fields.small_mlp._NEGLIGIBLE", 0.0)  # of a gradient, what is left out
    data, found = load_scene(scene), []
    for weight in (0.0, 1.0):
        config = NerfConfig(data=scene, model="ref-nerf", predicted_normal_weight=weight, **CLASSIC, **PROPOSALS)
        torch.manual_seed(0)
        model = make_model(config.resolved(), bounded=True)
        rays = model.rays(sample_pixels(data.train.cameras, torch.arange(150, 250)))
        loss, _ = normal_losses(model, model.render(rays, torch.ones(3), torch.Generator().manual_seed(0)))
        parts = [model.network.density_head.weight, model.network.normal_head.weight]
        found.append(torch.autograd.grad(loss, parts))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-7)
    assert found[1][1].norm() > 10 * found[0][1].norm()


@pytest.mark.parametrize("model", ["fast", "surface", "nerf", "mip-nerf-360"])
@pytest.mark.parametrize("bounded", [True, False])
def test_density_along_rays_gathers_if_its_entropy_has_a_weight(scene: Path, model: Any, bounded: bool) -> None:
    options = FAST if model in ("fast", "surface") else CLASSIC
    data, spread = load_scene(scene), []
    for weight in (1e-6, 0.3):
        config = NerfConfig(data=scene, model=model, steps=40, ray_entropy_weight=weight, **options)
        trainer = NerfJob(config.resolved(), data._replace(bounded=bounded))
        try:
            logs = [trainer.step() for _ in range(40 if bounded else 3)]
        finally:
            trainer.close()
        assert all(math.isfinite(value) for log in logs for value in log.values())
        spread.append(sum(log["ray_entropy"] for log in logs[-8:]))
    assert not bounded or spread[1] < 0.9 * spread[0]


def test_rays_beside_the_visual_hull_cost_nothing(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The ball is inside of it; beside it there is background, in images, losses and meshes."""
    from sdfgan.nerf.mesh import scene_surface

    data, psnr = load_scene(scene), []
    for visual_hull in (False, True):
        config = NerfConfig(data=scene, model="nerf", steps=60, visual_hull=visual_hull, **CLASSIC).resolved()
        trainer = NerfJob(config, data)
        try:
            logs = [trainer.step() for _ in range(60)]
            psnr.append(trainer.renderer.scores(data.val, [0, 1])["psnr"])
        finally:
            trainer.close()
        samples = sum(log["samples"] for log in logs) / 60
        assert samples < 0.9 * 24 if visual_hull else samples == 24
    trainer.describe()
    assert re.search(r"visual hull: [2-7]\d\.\d% of the scene's cube", capsys.readouterr().out)
    unbounded = NerfJob(config, data._replace(bounded=False))
    unbounded.describe()
    unbounded.close()
    assert "no visual hull, which needs an object in pinhole images with alpha" in capsys.readouterr().out
    hull, surface = trainer.model.occupancy, scene_surface(trainer.model, config, 16)
    ball = torch.nn.functional.normalize(torch.randn(500, 3), dim=1) * posed.RADIUS / 1.5
    assert hull(ball).all() and hull(1.4 * ball).float().mean() < 0.5
    assert psnr[1] > psnr[0] - 1 and psnr[1] > 15
    empty = hull.points((~hull.seen).nonzero()[:5, 0])
    assert (surface.sdf(empty) == 1).all()
    span = torch.zeros(5), torch.full((5,), 1e-3)
    looking = trainer.model.look(Rays(empty, torch.eye(3)[:1].expand(5, 3).contiguous(), *span), torch.ones(3))
    assert (looking.rgb == 1).all() and (looking.opacity == 0).all() and looking.depth.isinf().all()


@pytest.mark.parametrize("model", ["fast", "surface", "ref-nerf"])
def test_continuing_equals_going_straight_on(scene: Path, tmp_path: Path, model: Any) -> None:
    options = {
        **(CLASSIC | PROPOSALS if model == "ref-nerf" else FAST),
        **NO_RESULTS,
        "data": scene,
        "model": model,
        "steps": 20,
        **({"surface_steps": 8} if model == "surface" else {}),  # in the middle of which it is stopped
    }
    train(NerfConfig(output_dir=tmp_path / "straight", **options, checkpoint_interval=100))

    original, calls = NerfJob.step, []

    def stop_at_15(self: NerfJob) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 15:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NerfJob, "step", stop_at_15)
        with pytest.raises(SystemExit) as stopped:
            train(NerfConfig(output_dir=tmp_path / "halted", **options, checkpoint_interval=100))
    assert stopped.value.code == 128 + signal.SIGTERM
    assert resolve_checkpoint(tmp_path / "halted").name == "step-0000015"
    train(NerfConfig(device="cpu", resume=tmp_path / "halted"))
    saved = load_checkpoint(resolve_checkpoint(tmp_path / "halted"))[1]
    train(NerfConfig(device="cpu", resume=tmp_path / "halted"))  # finished: nothing to save again
    assert load_checkpoint(resolve_checkpoint(tmp_path / "halted"))[1] == saved
    straight, halted = weights(tmp_path / "straight"), weights(tmp_path / "halted")
    assert straight.keys() == halted.keys()
    assert all(torch.equal(straight[name], halted[name]) for name in straight)


class Half(Ranks):
    """One of two processes that takes the other's place too: it averages both shares, one after the other."""

    def __init__(self, trainer: list[NerfJob]) -> None:
        super().__init__(0, 2)
        self.trainer = trainer

    def average(self, tensors: Any) -> list[torch.Tensor]:
        if self.rank == 1:
            raise _Other(tensors)
        self.rank = 1
        trainer = self.trainer[0]
        trainer.random.set_state(self.before)
        try:
            trainer.step()
        except _Other as other:
            theirs = other.args[0]
        self.rank = 0
        return [(a + b) / 2 for a, b in zip(tensors, theirs, strict=True)]


class _Other(Exception):
    pass


def test_the_number_of_processes_and_threads_does_not_matter(scene: Path) -> None:
    data, results = load_scene(scene), []
    config = NerfConfig(data=scene, **CLASSIC, model="nerf", steps=4).resolved()
    for threads, processes in ((1, 1), (2, 1), (2, 2)):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        itself: list[NerfJob] = []
        ranks = Half(itself) if processes == 2 else None
        trainer = NerfJob(config, data, ranks)
        itself.append(trainer)
        for _ in range(4):
            if ranks is not None:
                ranks.before = trainer.random.get_state()
            trainer.step()
        trainer.close()
        torch.set_num_threads(before)
        results.append([p.detach().clone() for p in trainer.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    for a, b in zip(results[0], results[2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", ["fast", "surface", "nerf"])
def test_the_number_of_threads_within_a_chunk_does_not_matter(scene: Path, model: str) -> None:
    sizes = {**(CLASSIC if model == "nerf" else FAST), "chunk_size": 512, "model": model, "steps": 6}
    config = NerfConfig(data=scene, **sizes).resolved()
    before, results = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        trainer = NerfJob(config, load_scene(scene))
        assert trainer.chunks == 1
        for _ in range(6):
            trainer.step()
        trainer.close()
        results.append(list(trainer.model.parameters()))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_chunks_are_shared_by_any_number_of_processes(scene: Path) -> None:
    config, data = (
        NerfConfig(data=scene, model="nerf", steps=1, **{**CLASSIC, "chunk_size": 128}).resolved(),
        load_scene(scene),
    )
    for count, chunks, rays in ((1, 1, 128), (3, 3, 126), (200, 200, 200)):
        trainer = NerfJob(config, data, Ranks(0, count))
        trainer.close()
        assert [len(chunk.pixels) for chunk in trainer._draw()] == [rays // chunks] * chunks


def test_a_checkpoint_goes_on_with_another_number_of_processes(scene: Path) -> None:
    config = NerfConfig(data=scene, model="nerf", steps=1, **{**CLASSIC, "rays": 512, "chunk_size": 128}).resolved()
    data = load_scene(scene)
    saved = NerfJob(config, data)
    tensors, state = saved.state()
    saved.close()
    for count in (2, 3, 5):
        trainer = NerfJob(config, data, Ranks(0, count))
        trainer.load_state(Saved(Path("here"), tensors, {**state, "step": 0}))
        trainer.close()
        assert 0 < trainer.rays_now <= 512 and trainer.rays_now % trainer.chunks == 0


def fisheye_scene(folder: Path, focal: float = 15.0, k: tuple[float, ...] = (-0.35, 0.05, 0.0, 0.01)) -> Path:
    """The ball through a fisheye, by OpenCV's formula, beside a red patch that masks hide."""
    side = posed.SIDE
    at = np.arange(side) + 0.5 - side / 2
    x, y = np.meshgrid(at / focal, at / focal)
    bent = np.hypot(x, y)
    angles = np.linspace(0, 1.4, 100_001)
    theta = np.interp(bent, angles * (1 + sum(factor * angles ** (2 * i + 2) for i, factor in enumerate(k))), angles)
    aside = np.sin(theta) / bent
    rays = torch.from_numpy(np.stack((aside * x, -aside * y, -np.cos(theta)), -1)).float()
    shown = np.full((side, side), 255, np.uint8)
    shown[:, :5] = 0
    folder.mkdir()
    Image.fromarray(shown).save(folder / "mask.png")
    for split, poses in (("train", posed.cameras(8)), ("val", posed.cameras(2, start=0.3))):
        frames = []
        poses[:, :, 3] *= 0.5  # close by, where lenses differ
        for i, (pose, matrix) in enumerate(zip(poses, to_blender(poses), strict=True)):
            directions, origin = rays @ pose[:, :3].T, pose[:, 3]
            middle = -(directions @ origin)
            square = posed.RADIUS**2 - (origin.square().sum() - middle**2)
            hit = origin + (middle - square.clamp(min=0).sqrt())[..., None] * directions
            rgba = torch.cat((hit / posed.RADIUS / 2 + 0.5, torch.ones(side, side, 1)), -1) * (square > 0)[..., None]
            rgba[torch.from_numpy(shown) == 0] = torch.tensor([1.0, 0, 0, 1])
            Image.fromarray((rgba.clamp(0, 1) * 255).round().byte().numpy()).save(folder / f"{split}_{i}.png")
            frames.append({"file_path": f"{split}_{i}", "transform_matrix": matrix.tolist(), "mask_path": "mask.png"})
        lens = {"camera_model": "OPENCV_FISHEYE", "fl_x": focal, **{f"k{i + 1}": factor for i, factor in enumerate(k)}}
        (folder / f"transforms_{split}.json").write_text(json.dumps({**lens, "frames": frames}))
    return folder


def test_a_scene_through_a_fisheye_with_masks(tmp_path: Path) -> None:
    """The right lens finds held-out views, a pinhole of its focal length does not; what is hidden is not learnt."""
    from sdfgan.nerf.report import SceneRenderer

    data = load_scene(fisheye_scene(tmp_path / "scene"))
    assert data.val is not None and data.bounded
    pinhole = data.train.cameras._replace(fisheye=None, distortion=torch.zeros(8, 4))
    scores = []
    for train_views in (data.train, dataclasses.replace(data.train, cameras=pinhole)):
        config = NerfConfig(data=tmp_path / "scene", steps=120, **FAST).resolved()
        trainer = NerfJob(config, data._replace(train=train_views))
        try:
            assert trainer.valid is not None and (trainer.valid % posed.SIDE >= 5).all()
            logs = [trainer.step() for _ in range(120)]
        finally:
            trainer.close()
        assert all(math.isfinite(value) for log in logs for value in log.values())
        observer = SceneRenderer(trainer.model, trainer.background, 300)
        scores.append(observer.scores(data.val, [0, 1])["psnr"])
        hidden = observer.look(data.train.cameras._replace(mask=None), 0).rgb[:, :, :4]
        assert (hidden - torch.tensor([1.0, 0, 0])[:, None, None]).abs().amax(0).mean() > 0.3
    assert scores[0] > 20 and scores[0] > scores[1] + 1.5


def test_pictures_of_masked_views_are_grey_where_nothing_is_known(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = NerfConfig(data=fisheye_scene(tmp_path / "scene"), output_dir=run, steps=2, mesh_resolution=0, **FAST)
    summary = train(dataclasses.replace(config, video_frames=0))
    sheet = np.asarray(Image.open(run / "views.png")).reshape(2, posed.SIDE, 3, posed.SIDE, 3)  # row, y, column, x, RGB
    hidden, shown = sheet[:, :, :, :5], sheet[:, :, :, 5:]
    assert (abs(hidden.astype(int) - 127.5) < 1).all() and (abs(shown.astype(int) - 127.5) > 1).any()
    assert summary["scores"]["val"]["views"] == 2


def test_learning_rate_crop_precision_and_clipping(scene: Path) -> None:
    options = {"center_crop_steps": 1, "precision": "bf16", "gradient_clip": 1e-3, "learning_rate_final": 0.1}
    config = NerfConfig(data=scene, model="nerf", steps=10, **options, **CLASSIC)
    trainer = NerfJob(config.resolved(), load_scene(scene))
    first, crop = trainer._draw(), trainer.middle
    side = posed.SIDE
    rows, columns = crop % side**2 // side, crop % side
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 14, 5, 14)
    assert trainer.valid is None  # without a lens all are
    assert torch.isin(first[0].pixels, crop).all()
    rates = [trainer.step()["learning_rate"] for _ in range(10)]
    trainer.close()
    assert rates[0] == pytest.approx(0.01 * 2e-2) and rates[2] == pytest.approx(2e-2 * 0.1**0.2 * 0.505)
    assert rates[9] == pytest.approx(2e-2 * 0.1**0.9)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": None}, "--data: the folder of a scene is needed"),
        ({"rays": 0}, "--rays must be positive, got 0"),
        ({"learning_rate_final": 2.0}, "--learning-rate-final must be at most 1, got 2.0"),
        ({"near": 3.0, "far": 2.0}, "--far must be more than --near"),
        ({"prop_normal": True}, "--prop-normal is for --model ref-nerf, got fast"),
        ({"srgb": False}, "--srgb is for --model ref-nerf, got fast"),
        ({"octaves": 8}, "--octaves is for --model nerf or mip-nerf or mip-nerf-360 or ref-nerf, got fast"),
        ({"model": "nerf"}, "--samples is for --model fast or surface, got nerf"),
        ({"model": "toast"}, "--model must be one of fast, surface, nerf, mip-nerf, mip-nerf-360, ref-nerf, got toast"),
        ({"hash_table": 30}, "--hash-table must be between 1 and 24, got 30"),
        ({"seed": 2**63}, "--seed must be at most 9223372036854775807"),
        ({"image_scale": 2.0}, r"--image-scale must be in \(0, 1\], got 2.0"),
    ],
)
def test_bad_settings_are_named(scene: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        train(NerfConfig(**{"data": scene, "dry_run": True, **FAST, **changes}))


@pytest.mark.parametrize("changes", [{"data": 7}, {"model": "toast"}, {"rays": "many"}, {"octaves": [1]}])
def test_configurations_of_files_are_checked(changes: dict[str, Any]) -> None:
    saved = NerfConfig(model="mip-nerf", device="cpu").resolved().to_json()
    assert NerfConfig.from_json(saved, Path("state.json")).octaves == 12
    del saved["visual_hull"]  # as earlier versions wrote it
    assert not NerfConfig.from_json(saved, Path("state.json")).visual_hull
    with pytest.raises(UserError, match=r"state\.json: not a train-nerf configuration of this version: "):
        NerfConfig.from_json({**saved, **changes}, Path("state.json"))


def test_lpips_is_checked_before_training(scene: Path, tmp_path: Path) -> None:
    options = {"data": scene, "output_dir": tmp_path / "run", **FAST}
    with pytest.raises(UserError, match=r"none\.pth"):
        train(NerfConfig(lpips=tmp_path / "none.pth", **options))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdfgan.lpips.load_lpips", lambda path: torch.nn.Identity())
        with pytest.raises(UserError, match="--lpips: images must be at least 35 pixels wide and high, got 20"):
            train(NerfConfig(lpips=tmp_path / "some.pth", **options))
    assert not (tmp_path / "run").exists()


def test_alpha_is_needed_for_white(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = posed.blender_scene(tmp_path, train=2, val=1)
    from PIL import Image

    for path in folder.glob("*/*.png"):
        Image.open(path).convert("RGB").save(path)
    assert main(["train-nerf", "--data", str(folder), "--background", "white", "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert f"{folder}: --background white needs images with alpha, but these have none" in said


@pytest.mark.parametrize(
    ("model", "options", "gain", "agreement"),
    [("fast", FAST, 2, 0.5), ("surface", FAST, 5, 0.9), ("nerf", CLASSIC, 0.3, 0.4)],
)
def test_exposures_are_found(
    model: str, options: dict[str, Any], gain: float, agreement: float, tmp_path: Path
) -> None:
    """Of images that have been darkened, each channel of each by a factor of its own."""
    scene = posed.blender_scene(tmp_path / "ball", train=24)
    factors = 0.35 + 0.65 * torch.rand(24, 3, generator=torch.Generator().manual_seed(1))
    data, psnr = load_scene(scene), []
    views, pixels = data.train, data.train.pixels.clone()
    image = torch.repeat_interleave(torch.arange(len(views)), views.sizes.prod(1))
    pixels[:, :3] = (pixels[:, :3].float() * factors[image]).round().byte()
    options = {**options, **({"coarse_levels": 2, "learning_rate": 2e-2} if model == "surface" else {})}
    for exposure in (False, True):
        config = NerfConfig(data=scene, model=model, steps=160, exposure=exposure, **options).resolved()
        job = NerfJob(config, data._replace(train=dataclasses.replace(views, pixels=pixels)))
        try:
            psnr.append(sum([job.step()["psnr"] for _ in range(160)][-10:]) / 10)
        finally:
            job.close()
        assert ("exposures.logs" in job.state()[0]) == exposure
    assert psnr[1] > psnr[0] + gain
    found, true = job.exposures.gains.detach().log(), factors.log()
    torch.testing.assert_close(found.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    for channel in range(3):
        assert torch.corrcoef(torch.stack((found[:, channel], true[:, channel])))[0, 1] > agreement


def test_the_background_has_no_exposure() -> None:
    """A pixel half covered: a colour of 0.5 at a gain of 2, over a background of 0.8."""
    rays = Rays(torch.zeros(1, 3), torch.ones(1, 3), torch.zeros(1), torch.ones(1))
    batch = Batch(rays, torch.zeros(1, 3), torch.full((1, 3), 0.8), gain=torch.full((1, 3), 2.0))
    seen = torch.full((1, 3), 0.5 * 0.5 + 0.5 * 0.8)
    torch.testing.assert_close(batch.exposed(seen, torch.tensor([0.5])), torch.full((1, 3), 0.5 * 1.0 + 0.5 * 0.8))
    assert batch._replace(gain=None).exposed(seen, torch.tensor([0.5])) is seen
