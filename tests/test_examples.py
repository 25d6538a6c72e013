"""The examples run, and find what they look for."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def test_examples_are_short() -> None:
    assert EXAMPLES
    for path in EXAMPLES:
        assert len(path.read_text().splitlines()) <= 40, path


def test_an_example_needs_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its results are then in the current folder."""
    written: list[str | Path] = []

    class Written(Exception):
        pass

    def refuse(path: str | Path, *more: object) -> None:
        written.append(path)
        raise Written

    monkeypatch.setattr("sdfgan.images.VideoWriter", refuse)
    monkeypatch.setattr("sys.argv", ["inverse_rendering.py"])
    with pytest.raises(Written):
        runpy.run_path(str(EXAMPLES[0].with_name("inverse_rendering.py")), run_name="__main__")
    assert written == [Path("fit.gif")]


def test_inverse_rendering_recovers_the_scene(tmp_path: Path) -> None:
    example = runpy.run_path(str(next(path for path in EXAMPLES if path.stem == "inverse_rendering")))
    found = example["fit"](tmp_path, steps=200, resolution=32)
    for value, true, start in zip(found, example["TRUTH"], example["START"], strict=True):
        error, before = ((x.detach() - torch.tensor(true)).abs().max() for x in (value, torch.tensor(start)))
        assert error < 0.25 * before
    assert {path.name for path in tmp_path.iterdir()} == {"fit.gif", "views.png", "mesh.glb"}
    mesh = trimesh.load(tmp_path / "mesh.glb", force="mesh")
    assert mesh.is_watertight and mesh.bounds[0] == pytest.approx([-0.42] * 3, abs=0.03)
    assert mesh.bounds[1, 0] == pytest.approx(0.34 + 0.25, abs=0.05)
    above, below = np.split(np.asarray(Image.open(tmp_path / "views.png")) / 255, 2)
    assert np.square(above - below).mean() < 1e-4  # 40 dB
