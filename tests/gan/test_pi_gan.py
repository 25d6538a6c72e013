"""`--generator pi-gan`: the radiance field trains, under every curriculum of pi-GAN's, and can be looked at."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

import tiny_gan
from sdfgan import cameras
from sdfgan.data.shapes import render_shapes
from sdfgan.errors import UserError
from sdfgan.fields import PiGanField
from sdfgan.fields.volume import Radiance, RaySamples
from sdfgan.gan import GanConfig, drawing, make_generator
from sdfgan.gan.curricula import Stage, load_curriculum
from sdfgan.gan.data import TrainingData
from sdfgan.gan.inversion import Effort, invert
from sdfgan.gan.job import GanJob
from sdfgan.gan.views import ImageRenderer
from sdfgan.meshes import marching_cubes

TINY = {**tiny_gan.TINY, "generator": "pi-gan", "steps": 12, "march_steps": 4, "trunk_layers": 3}


def trained(config: GanConfig, steps: int) -> tuple[GanJob, list[dict[str, float]]]:
    job = GanJob(config, TrainingData.of(render_shapes(32, max(config.resolutions)).images))
    try:
        return job, [job.step() for _ in range(steps)]
    finally:
        job.close()


@pytest.mark.parametrize("name", ["carla", "cats", "celeba"])
def test_curricula(name: str) -> None:
    """A step past the start of the last stage, at a tiny size; every number stays finite and every part moves."""
    curriculum = load_curriculum(name, GanConfig())
    settings = {field: value for field, value in curriculum.settings.items() if field not in TINY}
    stages = []
    for index, stage in enumerate(curriculum.stages):
        resolution = max(16, stage.changes["resolution"] // 4)
        stages.append(Stage(2 * index, {**stage.changes, "resolution": resolution, "batch_size": 4, "chunk_size": 2,
                                        "march_steps": 4}))  # fmt: skip
    options = {**TINY, **settings, "fade_steps": 2, "data_layout": "auto", "stages": tuple(stages)}
    config = GanConfig(**options).resolved()
    fresh, _ = trained(config, 0)
    before = {key: value.clone() for key, value in fresh.generator.named_parameters()}
    job, logs = trained(config, 2 * len(stages) + 1)
    assert all(math.isfinite(value) for log in logs for value in log.values())
    assert all(log["skipped"] == 0 for log in logs)
    for key, value in job.generator.named_parameters():
        assert not torch.equal(value, before[key]), key


def test_the_mapping_network_has_its_own_rate() -> None:
    """A hundredth of the rate: Adam moves the mapping's weights about a hundred times less in a step."""
    moved = {}
    for rate in (1.0, 0.01):
        config = GanConfig(**TINY, mapping_rate=rate).resolved()
        job = GanJob(config, TrainingData.of(render_shapes(16, 16).images))
        before = {key: value.clone() for key, value in job.generator.named_parameters()}
        job.step()
        job.close()
        moved[rate] = {k: (v - before[k]).abs().max().item() for k, v in job.generator.named_parameters()}
    for key in moved[1.0]:
        expected = 0.01 if key.startswith("mapping") else 1.0
        assert moved[0.01][key] == pytest.approx(expected * moved[1.0][key], rel=0.05), key


def test_it_begins_as_a_ball_that_can_be_looked_at() -> None:
    config = GanConfig(**TINY).resolved()
    torch.manual_seed(0)
    generator = make_generator(config)
    assert isinstance(generator, PiGanField)
    generator.measure_slope()
    with torch.no_grad():
        condition = generator.condition(torch.randn(2, 8))
        axes = cameras.rotate_axes((torch.tensor([0.2, 0.4]), torch.tensor([0.0, 2.0])))
        (seen,) = ImageRenderer(generator, math.radians(25)).look(condition, axes, 32)
        drawn = drawing.draw(generator, condition, axes, config)
    assert seen.rgb.shape == (2, 3, 32, 32) and 0.15 < seen.alpha.mean() < 0.5
    middle = seen.depth[:, 0, 15:17, 15:17]
    assert ((middle - (cameras.camera_distance() - 0.5)).abs() < 0.2).all()  # its front, a radius before the origin
    facing = (seen.normals[:, :, 15:17, 15:17] * axes[:, 2, :, None, None]).sum(1)
    assert (facing > 0.8).all()
    assert (seen.rgb[:, :, 0, 0] == 1).all() and seen.depth[:, :, 0, 0].isinf().all()
    coarse = torch.nn.functional.avg_pool2d(seen.alpha, 2)
    assert (drawn.alpha - coarse).abs().mean() < 0.05
    mesh = marching_cubes(generator, dataclasses.replace(condition, scales=condition.scales[:1],
                                                         shifts=condition.shifts[:1]), 24)  # fmt: skip
    assert mesh.is_watertight and 0.3 < mesh.bounds[1].mean() < 0.7


def test_its_own_picture_is_inverted() -> None:
    config = GanConfig(**TINY).resolved()
    torch.manual_seed(0)
    generator = make_generator(config).requires_grad_(False)
    axes = cameras.rotate_axes((torch.tensor([0.3]), torch.tensor([1.0])))
    target = drawing.draw(generator, generator.condition(torch.randn(1, 8)), axes, config)
    effort = Effort(candidates=8, starts=2, latent_steps=4, code_steps=4)
    losses: list[float] = []
    poses = cameras.pose_distribution("uniform", (0.2, 0.4), (0.0, 6.28))
    found = invert(generator, config, target.channels(4)[0], poses, effort, on_progress=losses.append)
    assert losses[-1] < losses[0] and found.silhouette_iou > 0.8
    assert found.image.shape == (4, 16, 16) and len(found.history) == 8


def test_the_seed_fixes_a_run_for_any_number_of_threads() -> None:
    before, logs = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            torch.manual_seed(threads)  # torch's own random numbers do not matter
            logs.append(trained(GanConfig(**TINY).resolved(), 2)[1])
    finally:
        torch.set_num_threads(before)
    assert logs[0] == logs[1]


def test_what_pi_gan_has_of_layers_and_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 sine layers; N samples that place N more; in photographs all between near and far, up to the corners."""
    config = GanConfig(
        **{**TINY, "trunk_layers": None, "channels": 3, "fov": 12.0, "near_far": (0.88, 1.12)}
    ).resolved()
    generator = make_generator(config)
    assert isinstance(generator, PiGanField) and len(generator.layers) == 8
    assert len(make_generator(GanConfig(device="cpu").resolved()).weights) == 5  # 3, and one of each branch
    asked, radiance = [], generator.radiance

    def spy(places: RaySamples, condition: object) -> Radiance:
        asked.append(places.points)
        return radiance(places, condition)

    monkeypatch.setattr(generator, "radiance", spy)
    axes = cameras.rotate_axes((torch.tensor([0.2]), torch.tensor([1.0])))
    distance = cameras.camera_distance(math.radians(12))
    for seed, count in ((None, 2 * config.march_steps), (0, 2 * config.march_steps)):
        asked.clear()
        drawing.draw(generator, generator.condition(torch.zeros(1, 8)), axes, config, seed=seed)
        points = torch.cat(asked)
        assert len(points) == 16 * 16 * count
        depths = (points - distance * axes[0, 2]).norm(dim=1) / distance
        assert 0.88 <= depths.min() < 0.92 and 1.08 < depths.max() <= 1.12
        assert points.norm(dim=1).max() < generator.extent


def test_settings_for_surfaces_are_refused() -> None:
    weights = dict.fromkeys(("eikonal_weight", "back_face_weight", "minimal_surface_weight"), 0.1)
    for name, value in {**weights, "texture_latent_size": 4}.items():
        with pytest.raises(UserError, match=f"--{name.replace('_', '-')} must be 0: --generator pi-gan has no surface"):
            GanConfig(**TINY, **{name: value}).resolved()
    with pytest.raises(UserError, match="--renderer dfr is for surfaces: not for --generator pi-gan"):
        GanConfig(**TINY, renderer="dfr").resolved()
