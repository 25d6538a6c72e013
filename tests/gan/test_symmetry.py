"""Runs whose shapes have left and right alike from a step on."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from sdfgan.cameras import rotate_axes
from sdfgan.errors import UserError
from sdfgan.fields import FilmSirenSDF
from sdfgan.gan import GanConfig, job, load_generator, sample_latents, train
from sdfgan.raycast import render
from sdfgan.training.checkpoint import load_checkpoint, resolve_checkpoint
from tests.gan.test_train import TINY


@pytest.fixture(scope="module")
def symmetric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run, whose shapes are symmetric from its third step."""
    path = tmp_path_factory.mktemp("runs") / "symmetric"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDFGAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setattr("sdfgan.gan.symmetry._CLEAR", 2.0)  # after two steps no plane is better than others
        patch.setattr(job.Report, "final_images", lambda self: {"grid": None, "turntable": None, "meshes": []})
        train(GanConfig(output_dir=path, steps=6, symmetric_from=2, checkpoint_interval=2, **TINY))
    return path


def test_images_from_behind_the_mirror_are_mirror_images(symmetric: Path) -> None:
    generator, config = load_generator(symmetric)
    assert isinstance(generator, FilmSirenSDF) and generator.mirror is not None
    assert not isinstance(generator.mirror.x, torch.Tensor) and math.hypot(*generator.mirror[:2]) == pytest.approx(1)
    normal = math.atan2(generator.mirror.x, generator.mirror.z)  # its azimuth
    azimuth, elevation = torch.tensor([0.3, 2 * normal + math.pi - 0.3]), torch.tensor([0.5, 0.5])
    latents = sample_latents(config, [5]).expand(2, -1)
    images = render(sdf=generator, axes=rotate_axes((elevation, azimuth)), resolution=64, latents=latents).rgb
    assert images[0].std() > 0.05
    assert (images[0] - images[1].flip(-1)).abs().mean() < 1e-3


def test_a_run_continues_exactly_before_and_after_it_has_found_the_plane(
    symmetric: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sdfgan.gan.symmetry._CLEAR", 2.0)
    monkeypatch.setattr(job.Report, "final_images", lambda self: {"grid": None, "turntable": None, "meshes": []})
    wanted, state = load_checkpoint(resolve_checkpoint(symmetric))
    for kept in (2, 4):
        halted = tmp_path / f"halted-{kept}"
        shutil.copytree(symmetric, halted)
        for done in range(kept + 2, 8, 2):
            shutil.rmtree(halted / "checkpoints" / f"step-{done:07}")
        train(GanConfig(device="cpu", resume=halted))
        found, again = load_checkpoint(resolve_checkpoint(halted))
        assert all(torch.equal(values, found[name]) for name, values in wanted.items())
        assert again["mirror"] == state["mirror"] and len(state["mirror"]) == 3
        assert ("are alike now" in capsys.readouterr().out) == (kept == 2)


@pytest.mark.parametrize(
    "mirror", [[1.0, 0.0], [1, 1, 0.02], [0.6, 0.8, 0.0], [0.6, 0.8, math.nan], "x", [0.5, 0.5, 0.1]]
)
def test_a_damaged_plane_is_an_error(symmetric: Path, tmp_path: Path, mirror: object) -> None:
    shutil.copytree(symmetric, tmp_path / "run")
    file = resolve_checkpoint(tmp_path / "run") / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "mirror": mirror}))
    with pytest.raises(UserError, match="mirror must be"):
        load_generator(tmp_path / "run")


def test_shapes_without_a_clear_plane_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = []
    monkeypatch.setenv("SDFGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(job.Report, "final_images", lambda self: {"grid": None, "turntable": None, "meshes": []})
    monkeypatch.setattr("sdfgan.gan.state._MIRROR_INTERVAL", 2)
    monkeypatch.setattr("sdfgan.gan.state.find_mirror", lambda *given: looks.append(given))
    summary = train(GanConfig(output_dir=tmp_path / "run", steps=6, symmetric_from=1, **TINY))
    assert summary["mirror"] is None
    assert "left and right differ: no plane of symmetry was clear from step 1 on" in capsys.readouterr().out
    assert len(looks) == 3  # at steps 1, 3 and 5
    assert load_checkpoint(resolve_checkpoint(tmp_path / "run"))[1]["mirror"] is None


@pytest.mark.parametrize("generator", ["mlp", "dfr", "pi-gan"])
def test_other_generators_are_refused(generator: str) -> None:
    with pytest.raises(UserError, match=f"--symmetric-from is for --generator film-siren, not {generator}"):
        GanConfig(generator=generator, symmetric_from=0).resolved()
