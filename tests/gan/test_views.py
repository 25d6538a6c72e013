"""From where shapes are looked at: all round, or from no other sides than a run learned from; samples along rays."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sdfgan.cameras import Empirical, orbit_path, pose_distribution
from sdfgan.cli import main
from sdfgan.cli.interpolate import InterpolateConfig
from sdfgan.cli.render import RenderConfig, camera_path
from sdfgan.cli.shapes import view_range_of
from sdfgan.fields import PiGanField
from sdfgan.fields.volume import RaySamples
from sdfgan.gan import GanConfig, make_generator, train
from sdfgan.gan.views import ImageRenderer, ViewRange
from sdfgan.training.checkpoint import pack_module, save_checkpoint

FACES = ViewRange.of(pose_distribution("gaussian", (-0.1, 0.2), (-0.3, 0.5)))


def test_all_round_is_as_it_was() -> None:
    view_range = ViewRange.of(pose_distribution("uniform", (0.2, 0.4), (0.0, 2 * math.pi)))
    elevation, azimuth = view_range.spread(6)
    torch.testing.assert_close(azimuth, 2 * math.pi * torch.arange(6) / 6)
    torch.testing.assert_close(elevation, torch.full((6,), 0.3))
    for start, swing in ((None, 0.0), (1.0, 0.2)):
        expected = orbit_path(8, 0.3, start=start or 0.0, swing=swing)
        torch.testing.assert_close(view_range.turntable(8, start, swing), expected)
    assert (view_range.front, view_range.reach, view_range.slant) == (0, math.radians(30), math.radians(30))


def test_a_range_is_kept_to() -> None:
    elevation, azimuth = FACES.spread(5)
    torch.testing.assert_close(azimuth, torch.tensor([-0.3, -0.1, 0.1, 0.3, 0.5]))
    assert FACES.spread(1)[1].item() == pytest.approx(0.1) == FACES.slant
    for start in (None, 0.4, 0.4 + 2 * math.pi):
        elevation, azimuth = FACES.turntable(48, start, FACES.swing)
        assert azimuth[0].item() == pytest.approx(0.4 if start else 0.1)
        assert -0.3 - 1e-6 <= azimuth.min() < -0.29 and 0.49 < azimuth.max() <= 0.5 + 1e-6
        assert elevation.min() == pytest.approx(-0.1) and elevation.max() == pytest.approx(0.2)
        ends = torch.stack([azimuth[-1] - azimuth[0], elevation[-1] - elevation[0]])
        assert ends.norm() < 0.08, "it ends where it began"
    for start in torch.linspace(-3, 3, 301).tolist():  # one beyond the range widens it
        _, azimuth = FACES.turntable(48, start)
        assert azimuth[0].item() == pytest.approx(0.1 + math.remainder(start - 0.1, 2 * math.pi), abs=1e-3)
    assert FACES.turntable(48, 2.0)[1].max() == pytest.approx(2.0)
    still = ViewRange.of(pose_distribution("fixed", (0.1, 0.3), (0.0, 2 * math.pi)))
    assert not still.all_round and still.front == still.slant == pytest.approx(math.pi)


@pytest.mark.parametrize(
    ("degrees", "expected"), [((350, 355, 5, 10), (-10, 10)), ((10, 350), (-10, 10)), ((40, 90), (40, 90))]
)
def test_the_azimuths_of_data_are_a_range_that_may_go_through_0(degrees: tuple, expected: tuple) -> None:
    angles = torch.tensor([[0.1, math.radians(azimuth)] for azimuth in degrees])
    assert np.degrees(Empirical.of(angles).azimuth) == pytest.approx(expected, abs=1e-4)


def test_flags_go_before_the_runs_poses() -> None:
    config = GanConfig(elevation=(-10, 30), azimuth=(-20, 40))
    here = Path("run")
    view_range = view_range_of(RenderConfig(here), config)
    assert np.degrees([view_range.elevation, *view_range.azimuths]) == pytest.approx([10, -20, 40])
    _, azimuth = camera_path(RenderConfig(here, mode="front", frames=4), view_range)
    assert np.degrees(azimuth.numpy()) == pytest.approx([10, 40, 10, -20])
    _, azimuth = camera_path(RenderConfig(here, mode="front", frames=4, azimuth=5), view_range)
    assert np.degrees(azimuth.numpy()) == pytest.approx([10, 15, 10, 5])
    assert view_range_of(RenderConfig(here, elevation=50), config).elevation == pytest.approx(math.radians(50))
    assert view_range_of(InterpolateConfig(here, azimuth_range=(0, 360)), config).all_round


# ------------------------------------------------------------------------------------------------------ commands


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny, untrained radiance field whose colours depend on the direction of view; of frontal poses."""
    folder = tmp_path_factory.mktemp("runs") / "gan-001"
    config = GanConfig(
        device="cpu", generator="pi-gan", latent_size=4, width=16, mapping_width=16, azimuth=(-20, 40), elevation=(0, 8)
    ).resolved()
    torch.manual_seed(0)
    generator = make_generator(config)
    assert isinstance(generator, PiGanField)
    with torch.no_grad():
        generator.color_layer.get_parameter("weight")[:, :3] += 0.05 * torch.randn(16, 3)
        generator.color_head.get_parameter("weight").mul_(10)
    save_checkpoint(folder, 5, pack_module(generator, "ema"), {"kind": "gan", "config": config.to_json()})
    return folder


def test_a_locked_view() -> None:
    torch.manual_seed(0)
    field = PiGanField(8, 2, 4, 8)
    condition = field.condition(torch.randn(1, 4))
    points, directions = torch.rand(6, 3), torch.nn.functional.normalize(torch.randn(2, 6, 3), dim=2)
    a, b = (field.radiance(RaySamples(points, some), condition) for some in directions)
    assert not torch.allclose(a.rgb, b.rgb, atol=1e-4) and torch.equal(a.density, b.density)
    field.view_locked = True
    c, d = (field.radiance(RaySamples(points, some), condition) for some in directions)
    assert torch.equal(c.rgb, d.rgb) and torch.equal(c.density, a.density)
    torch.testing.assert_close(c.rgb, field.rgb(points, condition))


def seen(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> torch.Tensor:
    """The pictures that `render` would have written."""
    pictures: list[torch.Tensor] = []
    monkeypatch.setattr("sdfgan.cli.render.save_image", lambda path, picture: pictures.append(picture))
    assert main(["render", *arguments, "--mode", "images", "--seeds", "0", "--resolution", "16"]) == 0
    return pictures[0]


def test_flags_for_radiance_fields(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = seen(monkeypatch, str(run), "--azimuth", "60")
    locked = seen(monkeypatch, str(run), "--azimuth", "60", "--lock-view-dependence")
    assert (free - locked).abs().max() > 0.01
    coarse = seen(monkeypatch, str(run), "--azimuth", "60", "--samples", "4")
    assert (free - coarse).abs().max() > 1e-3
    again = seen(monkeypatch, str(run), "--azimuth", "60", "--samples", "2", "--ray_step_multiplier", "2")
    assert torch.equal(coarse, again)


def test_they_mean_nothing_for_surfaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = GanConfig(device="cpu", latent_size=4, width=16, mapping_width=16).resolved()
    tensors = pack_module(make_generator(config), "ema")
    save_checkpoint(tmp_path, 5, tensors, {"kind": "gan", "config": config.to_json()})
    plain = seen(monkeypatch, str(tmp_path))
    assert capsys.readouterr().err == ""
    assert torch.equal(plain, seen(monkeypatch, str(tmp_path), "--lock_view_dependence", "--num_steps", "36"))
    notes = [line for line in capsys.readouterr().err.splitlines() if "has no effect on a surface" in line]
    assert [note.split()[0] for note in notes] == ["--lock-view-dependence", "--samples"]
    for wrong in (["--samples", "0"], ["--samples", "5000"], ["--azimuth-range", "3", "2"]):
        assert main(["render", str(tmp_path), *wrong]) == 2 and wrong[0] in capsys.readouterr().err


@pytest.mark.parametrize("command", ["turntable", "interpolate"])
def test_videos_keep_to_what_the_run_learned_from(
    command: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    azimuths: list[float] = []

    def look(self: ImageRenderer, condition: object, axes: torch.Tensor, resolution: int) -> list:
        azimuths.append(math.degrees(torch.atan2(axes[0, 2, 0], axes[0, 2, 2]).item()))
        return []

    monkeypatch.setattr(ImageRenderer, "look", look)
    monkeypatch.setattr("sdfgan.gan.views.shown", lambda *arguments: torch.zeros(1, 3, 16, 16))
    output = ["--output", str(tmp_path / "a.mp4")]
    if command == "turntable":
        assert main(["render", str(run), "--mode", command, "--seeds", "0", "--frames", "4", *output]) == 0
        assert azimuths == pytest.approx([10, 40, 10, -20], abs=1e-3)
        return
    lines = ["--seeds", "0", "1", "--frames", "2", *output]
    assert main(["interpolate", str(run), *lines]) == 0
    assert azimuths == pytest.approx([10, 40, 10, -20], abs=1e-3)
    azimuths.clear()
    assert main(["interpolate", str(run), *lines, "--turns", "1", "--azimuth", "5"]) == 0
    assert azimuths == pytest.approx([5, 95, -175, -85], abs=1e-3)


def test_pictures_of_a_run_keep_to_what_it_learns_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    azimuths: list[float] = []
    look = ImageRenderer.look

    def watched(self: ImageRenderer, condition: object, axes: torch.Tensor, *arguments: int) -> list:
        azimuths.extend(torch.rad2deg(torch.atan2(axes[:, 2, 0], axes[:, 2, 2])).tolist())
        return look(self, condition, axes, *arguments)

    monkeypatch.setattr(ImageRenderer, "look", watched)
    config = GanConfig(
        device="cpu", output_dir=tmp_path / "run", azimuth=(-20, 40), steps=1, sample_interval=1, batch_size=2,
        chunk_size=2, resolution=16, width=16, mapping_width=16, latent_size=4, dataset_size=8, evaluate_images=0,
        discriminator_channels=8, view_resolution=16, video_frames=4, mesh_resolution=8,
    )  # fmt: skip
    train(config)
    assert len(azimuths) == 12 * 4 + 10 * 6 + 9 * 4 and min(azimuths) > -20.01 and max(azimuths) < 40.01
    assert max(azimuths) - min(azimuths) > 59
