"""Inversion finds what a generator made; arithmetic on conditions."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from sdfgan import conditions
from sdfgan.cameras import pose_distribution, rotate_axes
from sdfgan.cli.invert import InvertConfig, target_image
from sdfgan.errors import UserError
from sdfgan.fields import Field, FilmSirenSDF, MlpSDF
from sdfgan.fields.dfr import DfrSDF
from sdfgan.gan import GanConfig, drawing, make_generator, truncation
from sdfgan.gan.inversion import Effort, Inverted, _Kept, invert, silhouette_iou
from sdfgan.images import save_image
from sdfgan.training.checkpoint import pack_module, save_checkpoint


def varied() -> tuple[FilmSirenSDF, GanConfig]:
    """An untrained generator whose latents matter: its first layers shape the ball it is."""
    torch.manual_seed(0)
    config = GanConfig(device="cpu", latent_size=4, width=16, mapping_width=16).resolved()
    generator = make_generator(config)
    assert isinstance(generator, FilmSirenSDF)
    with torch.no_grad():
        generator.sdf_head.mul_(15)
    return generator.requires_grad_(False), config


def test_a_generators_own_picture_is_found() -> None:
    generator, config = varied()
    latent = torch.tensor([[1.0, -1.0, 0.5, 1.0]])
    axes = rotate_axes((torch.tensor([0.3]), torch.tensor([1.0])))
    with torch.no_grad():
        made = drawing.draw(generator, generator.condition(latent), axes, config).channels(4)[0]
    poses = pose_distribution("uniform", (0.2, 0.5), (0.0, 2 * math.pi))
    seen: list[float] = []
    effort = Effort(candidates=128, starts=4, latent_steps=25, code_steps=20)
    found = invert(generator, config, made, poses, effort, on_progress=seen.append)
    assert found.silhouette_iou > 0.93 and len(seen) == len(found.history) == 45
    assert found.loss < 0.3 * seen[0] and found.loss <= min(seen) + 1e-6
    assert found.image.shape == made.shape
    torch.testing.assert_close(found.image, made, atol=0.35, rtol=0)


def test_an_opaque_photograph_is_found_by_its_colours(tmp_path: Path) -> None:
    """Of a run of RGB, with the layout's crop: the silhouette, which is all of it, does not count."""
    generator, config = varied()
    config = dataclasses.replace(config, channels=3, data_layout="celeba", resolution=16)
    latent = torch.tensor([[1.0, -1.0, 0.5, 1.0]])
    axes = rotate_axes((torch.tensor([0.3]), torch.tensor([1.0])))
    with torch.no_grad():
        made = drawing.draw(generator, generator.condition(latent), axes, config).rgb[0]
    framed = torch.ones(3, 20, 20)  # a white border, which celeba's crop of 0.8 takes away
    framed[:, 2:18, 2:18] = made
    save_image(tmp_path / "photo.png", framed)
    target = target_image(InvertConfig(tmp_path, tmp_path / "photo.png", resolution=16), config)
    torch.testing.assert_close(target, torch.cat([made, torch.ones(1, 16, 16)]), atol=2 / 255, rtol=0)
    with pytest.raises(UserError, match="has no alpha; name its plain background"):
        target_image(InvertConfig(tmp_path, tmp_path / "photo.png"), dataclasses.replace(config, channels=4))

    poses = pose_distribution("uniform", (0.2, 0.5), (0.0, 2 * math.pi))
    seen: list[float] = []
    effort = Effort(candidates=48, starts=2, latent_steps=10, code_steps=8, mask_weight=1e3)
    found = invert(generator, config, target, poses, effort, on_progress=seen.append)
    assert found.silhouette_iou is None and found.loss < 0.5 * seen[0] < 1
    assert (found.image[:3] - made).abs().mean() < 0.01 < made.mean()


def test_features_count() -> None:
    """Their weighted mean squared difference is part of the loss."""
    generator, config = varied()
    target = torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(1))
    poses = pose_distribution("uniform", (0.2, 0.5), (0.0, 2 * math.pi))

    def features(pictures: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pictures, 2) ** 2

    def found(weight: float) -> Inverted:
        effort = Effort(candidates=1, starts=1, latent_steps=0, code_steps=0, perceptual_weight=weight)
        return invert(generator, config, target, poses, effort, features=features)

    without, counted = found(0.0), found(1e3)
    torch.testing.assert_close(counted.image, without.image)
    strayed = (features(without.image[None, :3]) - features(target[None, :3])).square().mean().item()
    assert counted.loss - without.loss == pytest.approx(1e3 * strayed, rel=1e-3) and strayed > 1e-3


def test_silhouette_iou() -> None:
    a = torch.zeros(4, 4)
    a[:2] = 1
    b = torch.zeros(4, 4)
    b[1:3] = 0.9
    assert silhouette_iou(a, b) == pytest.approx(1 / 3) and silhouette_iou(a * 0, b * 0) == 1


@pytest.mark.parametrize(
    "generator",
    [FilmSirenSDF(16, latent_size=4), MlpSDF(16, latent_size=4), DfrSDF(16, latent_size=4, mapping_width=8)],
    ids=["film-siren", "mlp", "dfr"],
)
def test_arithmetic_on_conditions(generator: Field) -> None:
    condition = generator.condition(torch.randn(3, 4))
    assert len(condition) == 3 and len(conditions.rows(condition, slice(1, 2))) == 1
    for share, row in ((0.0, 0), (1.0, 1)):
        a, b = (conditions.rows(condition, slice(i, i + 1)) for i in (0, 1))
        mixed, expected = conditions.lerp(a, b, share), conditions.rows(condition, slice(row, row + 1))
        for name, tensor in conditions.tensors_of(mixed).items():
            torch.testing.assert_close(tensor, conditions.tensors_of(expected)[name])
    each = conditions.lerp(conditions.rows(condition, slice(0, 1)), condition, torch.tensor([0.0, 1.0, 0.5]))
    points = torch.rand(5, 3)
    image = torch.tensor([0, 1, 1, 2, 2])
    assert generator.sdf(points, each, image).shape == (5,)


def test_the_mean_is_kept_and_a_damaged_one_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDFGAN_CACHE", str(tmp_path / "cache"))
    generator, config = varied()
    state = {"kind": "gan", "config": config.to_json()}
    checkpoint = save_checkpoint(tmp_path / "run", 1, pack_module(generator, "ema"), state)
    mean = truncation.cached_mean(checkpoint, generator, config, "ema")
    latents = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(5))
    expected = generator.condition(latents).scales.mean(0)
    torch.testing.assert_close(mean.scales[0], expected, atol=0.1, rtol=0.02)
    (file,) = (tmp_path / "cache" / "means").iterdir()
    monkeypatch.setattr(truncation, "mean_condition", lambda *arguments: pytest.fail("made again"))
    assert torch.equal(truncation.cached_mean(checkpoint, generator, config, "ema").scales, mean.scales)
    monkeypatch.undo()
    monkeypatch.setenv("SDFGAN_CACHE", str(tmp_path / "cache"))
    file.write_bytes(b"damaged")
    assert torch.equal(truncation.cached_mean(checkpoint, generator, config, "ema").scales, mean.scales)


def test_what_is_not_finite_is_never_kept() -> None:
    kept = _Kept()
    for losses, values in (([math.nan, 2.0], [0.0, 1.0]), ([3.0, math.nan], [2.0, 3.0])):
        kept.offer(torch.tensor(losses), torch.tensor(values)[:, None], torch.zeros(2, 2))
    assert kept.losses.tolist() == [3, 2] and kept.values[:, 0].tolist() == [2, 1]
