"""The examples run, and find what they look for."""

from __future__ import annotations

import importlib.util
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def load(name: str) -> dict[str, Any]:
    """What an example defines."""
    return runpy.run_path(str(FOLDER / f"{name}.py"))


def test_examples_are_short() -> None:
    assert len(EXAMPLES) >= 5
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
        runpy.run_path(str(FOLDER / "inverse_rendering.py"), run_name="__main__")
    assert written == [Path("fit.gif")]


def test_inverse_rendering_recovers_the_scene(tmp_path: Path) -> None:
    example = load("inverse_rendering")
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


def test_a_function_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("raycast_a_function")["image"].alpha.mean() > 0.3
    assert Image.open("raycast.png").size == (768, 256)
    assert "rays hit, the nearest at 3." in capsys.readouterr().out


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_its_script_in_cells(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By nbclient where that is installed; else the cells are run one after the other."""
    cells = json.loads(notebook.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    _, *parts = notebook.with_suffix(".py").read_text().split("# %% ")
    assert code == [part.partition("\n")[2].strip() for part in parts]
    monkeypatch.chdir(tmp_path)
    if importlib.util.find_spec("nbclient") and importlib.util.find_spec("ipykernel"):
        import nbclient
        import nbformat

        nbclient.NotebookClient(nbformat.read(notebook, 4), timeout=120).execute()
    else:
        names: dict[str, Any] = {}
        for cell in code:
            exec(compile(cell, notebook.name, "exec"), names)
    assert Image.open("raycast.png").size == (768, 256)


def test_a_mesh_is_fitted_and_cut(tmp_path: Path) -> None:
    trimesh.creation.torus(1.0, 0.4).export(tmp_path / "torus.stl")
    few = {"device": "cpu", "preset": "low", "num_points": 40_000, "epochs": 12, "mesh_resolution": 0, "metrics": False}
    solid = load("fit_a_mesh")["fit"](tmp_path / "torus.stl", tmp_path, resolution=48, **few)
    assert solid.sdf(torch.tensor([[1.0 / 1.4, 0.0, 0.0]])).item() < 0 < solid.sdf(torch.zeros(1, 3)).item()
    half = trimesh.load(tmp_path / "half.glb", force="mesh")
    assert half.bounds[0, 2] < -0.2 and half.bounds[1, 2] == pytest.approx(0, abs=0.05)
    assert np.asarray(Image.open(tmp_path / "half.png")).std() > 20


def test_a_module_learns_from_images(tmp_path: Path) -> None:
    train = load("own_module")["train"]
    torch.manual_seed(0)
    first = train(tmp_path, steps=1, resolution=16)
    torch.manual_seed(0)
    assert train(tmp_path, steps=25, resolution=16) < 0.75 * first
    assert {path.name for path in tmp_path.iterdir()} == {"own.png", "own.glb"}


def test_a_folder_of_images_is_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDFGAN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    for index in range(12):
        image = np.full((16, 16, 3), 255, np.uint8)
        image[3 : 10 + index % 4, 4:12] = (200, 15 * index, 40)
        Image.fromarray(image).save(tmp_path / "images" / f"{index}.png")
    few = {"device": "cpu", "resolution": 16, "batch_size": 4, "width": 16, "mapping_width": 16, "latent_size": 8}
    few |= {"discriminator_channels": 8, "evaluate_images": 0, "mesh_resolution": 0, "video_frames": 0, "steps": 2}
    few |= {"view_resolution": 16, "background": (1.0, 1.0, 1.0)}
    alpha = load("train_on_images")["learn"](tmp_path / "images", tmp_path / "run", side=24, **few)
    assert alpha.amax((1, 2, 3)).min() > 0.9
    assert {"four.png", "first.glb"} <= {path.name for path in (tmp_path / "run").iterdir()}
