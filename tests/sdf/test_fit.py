"""Training of a mesh's field: what comes out, that it can be resumed, and what happens to bad input."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sdfgan.cameras import rotate_axes
from sdfgan.cli import main
from sdfgan.errors import UserError
from sdfgan.meshes.normalise import Placement
from sdfgan.raycast import render
from sdfgan.sdf import job, runs, train
from sdfgan.sdf.config import DAM_WIDTHS, PRESETS, SdfConfig
from sdfgan.sdf.files import Case, find_inputs, read_samples
from sdfgan.sdf.job import SdfJob
from sdfgan.sdf.model import MeshSDF, load, make_field
from sdfgan.sdf.objective import distance_loss
from sdfgan.sdf.sampling import Samples

TINY = {
    "num_points": 4000, "epochs": 3, "batch_size": 500, "mesh_resolution": 24, "device": "cpu",
    "levels": 3, "finest": 16, "log2_size": 12, "learning_rate": 2e-3, "focus": 0.0,
    "metrics": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def ball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mesh of 320 faces, far from the origin."""
    path = tmp_path_factory.mktemp("meshes") / "ball.stl"
    mesh = trimesh.creation.icosphere(2, radius=3.0)
    mesh.apply_translation((10, 0, -5))
    mesh.export(path)
    return path


def tiny(ball: Path, folder: Path, **changes: Any) -> SdfConfig:
    return SdfConfig(**{"input": ball, "output_dir": folder, **TINY, **changes})


@pytest.fixture(scope="module")
def run(ball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "ball"
    changes = {"num_points": 30_000, "epochs": 4, "show_vis": 1, "validation_resolution": 8, "metrics": True}
    train(tiny(ball, folder, **changes))
    return folder


def test_a_ball_is_learnt(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    metrics = summary["metrics"]
    assert metrics["iou"] > 0.97 and metrics["chamfer_percent"] < 0.5 and metrics["f_score"] > 0.9
    assert metrics["error_near"] < 0.02 and metrics["error_surface"] < 0.01 and metrics["normal_consistency"] > 0.97
    mesh = trimesh.load(run / "mesh.glb", force="mesh")
    assert np.allclose(mesh.bounds.mean(0), (10, 0, -5), atol=0.2) and mesh.bounds[1, 0] == pytest.approx(13, abs=0.2)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    errors = [line["validation_error"] for line in lines if "validation_error" in line]
    assert len(errors) == 4 and errors[-1] < errors[0]
    for name in ("slices.png", "error.png", "turntable.mp4", "model.safetensors", "config.json"):
        assert (run / name).stat().st_size > 500


def test_images_without_a_video(ball: Path, tmp_path: Path) -> None:
    summary = train(tiny(ball, tmp_path / "run", show_vis=1, video_frames=0))
    assert summary["turntable"] is None and (tmp_path / "run" / "slices.png").is_file()
    assert not list((tmp_path / "run").glob("turntable*"))


def test_metrics_are_of_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Far from the origin an STL cannot hold the mesh, whatever the field is like; a GLB can."""
    mesh = trimesh.creation.icosphere(2, radius=0.5).apply_translation((500000, 37198208, 120))
    mesh.export(tmp_path / "far.obj", digits=8)
    chamfer = {}
    for form in ("stl", "glb"):
        config = tiny(tmp_path / "far.obj", tmp_path / form, mesh_format=form, metrics=True)
        metrics = train(config)["metrics"]
        chamfer[form] = metrics["chamfer_percent"]
    # There floats have steps of 4: the ball becomes a disc, 1/4 of a radius on average from it, of a diagonal of 1.7.
    assert chamfer["glb"] < 2 and 8 < chamfer["stl"] < 16
    assert "STL has single precision" in caplog.text


def test_a_loaded_field_is_rendered(run: Path) -> None:
    field = load(run)
    picture = render(sdf=field, axes=rotate_axes((torch.tensor([0.3]), torch.tensor([0.5]))), resolution=24)
    assert 0.25 < picture.alpha.mean() < 0.8  # a disc of radius 0.9
    centre = field.placement.original(torch.zeros(1, 3))
    assert torch.allclose(centre, torch.tensor([[10.0, 0, -5]]), atol=0.1)
    assert field(torch.zeros(1, 3)).item() == pytest.approx(-0.9, abs=0.15)


def test_a_stopped_run_goes_on_bit_for_bit(
    ball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    train(tiny(ball, tmp_path / "whole"))
    step = SdfJob.step

    def stopping(self: SdfJob) -> dict[str, float]:
        numbers = step(self)
        if self.steps_done == 11:  # within the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return numbers

    monkeypatch.setattr(SdfJob, "step", stopping)
    monkeypatch.chdir(ball.parent)
    with pytest.raises(SystemExit) as stopped:
        train(tiny(Path(ball.name), tmp_path / "half"))
    assert stopped.value.code == 128 + signal.SIGTERM
    assert f"stopped at step 11 of 24 and saved; continue with --resume {tmp_path / 'half'}" in capsys.readouterr().out
    monkeypatch.undo()  # the folder too
    assert not (tmp_path / "half" / "model.safetensors").exists()
    with pytest.raises(UserError, match="holds a run already"):
        train(tiny(ball, tmp_path / "half"))
    config = tmp_path / "half" / "config.json"
    right = config.read_text()
    config.write_text(right.replace("ball.stl", "other.stl"))
    (ball.parent / "other.stl").write_bytes(ball.read_bytes())
    with pytest.raises(UserError, match=r"step-0000011: is of \['.*ball.stl'\], not of \['.*other.stl'\]"):
        train(SdfConfig(resume=tmp_path / "half"))
    config.write_text(right)
    with pytest.raises(UserError, match=r"--epochs 20 differs from the run's \d+ \(.*half\): a run is continued as it"):
        train(SdfConfig(resume=tmp_path / "half", epochs=20))
    with pytest.raises(UserError, match=r"MESH .*other.stl differs from the run's .*ball.stl"):
        train(SdfConfig(ball.parent / "other.stl", resume=tmp_path / "half"))
    assert runs._resumed(SdfConfig(checkpoint_seconds=7.0), tmp_path / "half").checkpoint_seconds == 7
    summary = train(SdfConfig(resume=tmp_path / "half"))
    assert train(SdfConfig(resume=tmp_path / "half"))["wall_seconds"] == summary["wall_seconds"]
    assert "half: is finished" in capsys.readouterr().out
    shutil.copytree(tmp_path / "half", tmp_path / "moved")
    assert train(SdfConfig(resume=tmp_path / "moved"))["folder"] == str(tmp_path / "moved")
    whole, half = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "half"))
    assert whole.keys() == half.keys() and all(torch.equal(whole[name], half[name]) for name in whole)


@pytest.mark.parametrize("network", ["hash", "mlp"])
def test_fields_trained_together_are_those_trained_alone(network: str) -> None:
    config, cases = small(network)
    both = SdfJob(config, cases, fresh(config))
    finish_steps(both)
    for case, together, alone in zip(cases, both.learnt(), fresh(config), strict=True):
        start = alone.net.layers[0].weight.clone()
        finish_steps(SdfJob(config, [case], [alone]))
        assert not torch.allclose(start, alone.net.layers[0].weight)
        for name, value in alone.state_dict().items():
            assert torch.allclose(value, together.state_dict()[name], atol=2e-4), name


class Held:
    """Random samples, the same in each epoch."""

    def __init__(self, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        self.columns = [torch.randn(1500, *shape, generator=random) for shape in ((3,), (), (), (3,))]

    def __len__(self) -> int:
        return 1500

    def epoch(self, number: int, batch_size: int) -> Any:
        return (Samples(*rows) for rows in zip(*(c.split(batch_size) for c in self.columns), strict=True))


def small(network: str) -> tuple[SdfConfig, list[Case]]:
    """A small network, and two streams to learn."""
    config = SdfConfig(network=network, num_layers=1, width=8, octaves=2, **TINY).resolved()  # type: ignore[arg-type]
    place = Placement((0.0, 0.0, 0.0), 1.0)
    return config, [Case(Path(str(i)), Path(str(i)), Held(i), None, place, None, None, None) for i in range(2)]


def fresh(config: SdfConfig) -> list[MeshSDF]:
    """Two fields."""
    torch.manual_seed(1)
    return [make_field(config, None, Placement((0.0, 0.0, 0.0), 1.0)) for _ in range(2)]


def finish_steps(job: SdfJob) -> list[float]:
    """Train what is left; the losses."""
    return [job.step()["loss"] for _ in range(job.steps - job.steps_done)]


def nan_gradients(monkeypatch: pytest.MonkeyPatch, rows: list[bool], steps: set[int]) -> None:
    """At some steps the gradients of some fields are not finite, while their losses are."""
    update = SdfJob._update

    def spoilt(self: SdfJob, losses: torch.Tensor) -> list[float]:
        assert losses.isfinite().all()
        if self.steps_done in steps:
            for parameter in self.parameters.values():
                for index in [i for i, row in enumerate(rows) if row]:
                    parameter.grad.view(len(rows), -1)[index, -1] = torch.nan
        return update(self, losses)

    monkeypatch.setattr(SdfJob, "_update", spoilt)


@pytest.mark.parametrize("network", ["hash", "mlp"])
def test_a_gradient_that_is_not_finite_reaches_no_weights(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config, cases = small(network)
    nan_gradients(monkeypatch, [True], {2})
    alone = SdfJob(config, cases[:1], fresh(config)[:1])
    before = [alone.step() and {name: p.detach().clone() for name, p in alone.parameters.items()} for _ in range(2)]
    assert all(torch.equal(before[0][name], before[1][name]) for name in before[0]), "the step is left out"
    losses = finish_steps(alone)
    assert all(p.isfinite().all() for p in alone.parameters.values()) and losses[-1] < losses[0]
    assert not alone.failures


@pytest.mark.parametrize("network", ["hash", "mlp"])
def test_a_field_whose_gradient_is_not_finite_spoils_no_other(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that are stacked the other learns as it would alone; the one goes on when its gradients are finite."""
    config, cases = small(network)
    alone = SdfJob(config, cases[1:], fresh(config)[1:])
    finish_steps(alone)
    nan_gradients(monkeypatch, [True, False], {3, 4})
    both = SdfJob(config, cases, fresh(config))
    rows = []
    for _ in range(both.steps):
        both.step()
        rows.append({name: parameter[0].detach().clone() for name, parameter in both.parameters.items()})
    for name in rows[0]:
        assert all(row[name].isfinite().all() for row in rows)
        assert torch.equal(rows[1][name], rows[2][name]) and torch.equal(rows[1][name], rows[3][name])
    assert any(not torch.equal(rows[3][name], rows[4][name]) for name in rows[0])
    moments = [slot for slots in both.optimizer.state.values() for slot in slots.values()]
    assert all(moment.isfinite().all() for moment in moments) and not both.failures
    for name, value in alone.learnt()[0].state_dict().items():
        assert torch.allclose(value, both.learnt()[1].state_dict()[name], atol=2e-4), name


def test_gradients_that_are_never_finite_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    config, cases = small("mlp")
    config = dataclasses.replace(config, epochs=10)
    nan_gradients(monkeypatch, [True, False], set(range(100)))
    both = SdfJob(config, cases, fresh(config))
    finish_steps(both)
    assert [str(path) for path in both.failures] == ["0"]
    assert "the gradient was not finite for 20 steps; try a smaller --learning-rate" in str(both.failures[Path("0")])
    monkeypatch.undo()
    nan_gradients(monkeypatch, [True], set(range(100)))
    with pytest.raises(UserError, match="the gradient was not finite for 20 steps"):
        finish_steps(SdfJob(config, cases[:1], fresh(config)[:1]))


def test_a_folder_goes_on_past_what_is_bad(ball: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meshes = tmp_path / "meshes"
    (meshes / "more").mkdir(parents=True)
    for name in ("a.stl", "more/b.stl"):
        (meshes / name).write_bytes(ball.read_bytes())
    (meshes / "bad.stl").write_bytes(ball.read_bytes()[:300])
    (meshes / "empty.obj").write_bytes(b"")
    points = np.random.default_rng(0).uniform(-1, 1, (4000, 3))
    np.savez(meshes / "samples.npz", points=points, distances=np.linalg.norm(points, axis=1) - 0.5)
    (meshes / "notes.txt").write_text("not a mesh")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if name != "metrics"]
    (meshes / "other").mkdir()
    for name in ("mesh.stl", "model.safetensors"):  # what another run made is no input
        (meshes / "other" / name).write_bytes(ball.read_bytes())
    output = meshes / "out"  # nor is what this one makes
    line = ["train-sdf", str(meshes), "--output-dir", str(output), "--no-metrics", *flags]
    assert main(line) == 0
    out = capsys.readouterr().out
    assert "3 of 5 meshes" in out and "bad.stl: a truncated STL" in out and "empty.obj: the file is empty" in out
    summary = json.loads((output / "summary.json").read_text())
    assert summary["failed"] == 2 and {Path(name).name for name in summary["failures"]} == {"bad.stl", "empty.obj"}
    for name in ("a", "more/b", "samples"):
        assert (output / name / "mesh.glb").exists()
    assert load(output / "samples").extent == pytest.approx(3**0.5) and load(output / "a").extent == 1
    times = (output / "a/model.safetensors").stat().st_mtime_ns
    assert main(line) == 0  # nothing is left to do
    assert (output / "a/model.safetensors").stat().st_mtime_ns == times
    assert main([*line, "--seed", "1"]) == 2 and "holds a run with --seed 0, not 1" in capsys.readouterr().err
    for path in meshes.glob("**/[abs]*.*"):
        path.unlink()
    (meshes / "bad.stl").write_bytes(b"solid")
    assert main([*line, "--output-dir", str(tmp_path / "none")]) == 2
    assert "none of its 2 meshes could be fitted" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_share_a_folder(ball: Path, tmp_path: Path) -> None:
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    for name in "abc":
        (meshes / f"{name}.stl").write_bytes(ball.read_bytes())
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if name != "metrics"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, "-m", "sdfgan", "train-sdf", str(meshes), "--no-metrics", "--together=1", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    root = tmp_path / "runs" / "sdf-001"  # chosen by both
    assert "meshes 3/3" in done.stdout and "3 of 3 meshes in runs/sdf-001" in done.stdout
    summary = json.loads((root / "summary.json").read_text())
    assert summary["processes"] == 2 and summary["failed"] == 0
    (root / "b/summary.json").unlink()
    (root / "b/model.safetensors").unlink()
    train(SdfConfig(resume=root))  # by one process
    assert json.loads((root / "summary.json").read_text())["processes"] == 1 and (root / "b/mesh.glb").exists()


def test_one_bad_network_does_not_spoil_its_group(ball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "in" / f"{name}.stl").write_bytes(ball.read_bytes())
    made = job.fresh_field

    def spoilt(config: SdfConfig, case: Case) -> MeshSDF:
        field = made(config, case)
        if case.path.stem == "b":
            field.net.layers[0].weight.data.fill_(torch.nan)
        return field

    monkeypatch.setattr(job, "fresh_field", spoilt)
    config = tiny(tmp_path / "in", tmp_path / "out", mesh_resolution=0, together=2)
    summary = train(config)
    assert [Path(name).stem for name in summary["failures"]] == ["b"]
    assert "the loss was not finite" in next(iter(summary["failures"].values()))
    assert all(load(tmp_path / "out" / name)(torch.zeros(1, 3)) < 0 for name in ("a", "c"))
    (tmp_path / "out" / "c" / "summary.json").unlink()
    groups: list[list[str]] = []
    monkeypatch.setattr(runs._Group, "run", lambda self: groups.append([path.stem for path in self.paths]))
    train(config)
    assert groups == [["b"], ["c"]]  # of a, b and c: those that share checkpoints do not change


@pytest.mark.parametrize("scaler", ["StandardScaler", "PowerTransformer", "QuantileTransformer"])
@pytest.mark.parametrize("network", ["hash", "mlp"])
def test_scalers_and_losses_learn(ball: Path, tmp_path: Path, scaler: str, network: str) -> None:
    loss = {"StandardScaler": "l2", "PowerTransformer": "clamped", "QuantileTransformer": "l1"}[scaler]
    shape: dict[str, Any] = {"num_layers": 2, "width": 32}
    shape["precision"] = "bf16" if (network, loss) == ("mlp", "l2") else "fp32"
    train(tiny(ball, tmp_path, network=network, scaler=scaler, scaler_of="both", loss=loss, epochs=6, **shape))
    field = load(tmp_path)
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    error = (field(points) - (points.norm(dim=1) - 0.9)).abs()
    near = torch.nn.functional.normalize(points) * 0.9
    assert field(near).abs().mean() < 0.06 and error.isfinite().all()


def test_gradient_losses() -> None:
    config = SdfConfig(eikonal_weight=0.5, normal_weight=2.0, **TINY).resolved()
    field = make_field(config, None, Placement((0.0, 0.0, 0.0), 1.0))
    points = torch.rand(50, 3) - 0.5
    distances, normals = 0.01 * torch.ones(50), torch.nn.functional.normalize(torch.randn(50, 3))
    samples = Samples(points, distances, torch.ones(50), normals)
    plain = distance_loss(field, samples, dataclasses.replace(config, eikonal_weight=0.0, normal_weight=0.0))
    loss = distance_loss(field, samples, config)
    _, gradient = field.sdf_and_gradient(points)
    length = gradient.norm(dim=1)
    wanted = plain + 0.5 * (length - 1).square().mean()
    wanted = wanted + 2 * (1 - (gradient * normals).sum(1) / length.clamp(min=1e-6)).mean()
    assert torch.allclose(loss, wanted, atol=1e-6)
    loss.backward()
    assert field.encoding.table.grad.abs().sum() > 0


def test_focus_weighs_errors_near_the_surface() -> None:
    config = SdfConfig(**{**TINY, "focus": 0.01}).resolved()
    field = make_field(config, None, Placement((0.0, 0.0, 0.0), 1.0))
    points, distances = torch.rand(2, 3), torch.tensor([0.0, -0.09])
    errors = (field(points) - distances).abs()
    wanted = (100 * errors[0] + 10 * errors[1]) / 110
    assert torch.allclose(
        distance_loss(field, Samples(points, distances, torch.ones(2), torch.ones(2, 3)), config), wanted
    )
    assert SdfConfig(device="cpu").resolved().focus == 0.005 and SdfConfig(network="mlp").resolved().focus == 0
    with pytest.raises(UserError, match="--focus must not be negative, got -1"):
        SdfConfig(focus=-1.0, device="cpu").resolved()
    old = {name: value for name, value in config.to_json().items() if name not in ("focus", "field", "refine_thin")}
    assert SdfConfig.from_json(old, Path("config.json")).field == "signed"  # of a version that knew no other


def test_seed_command_line(ball: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[SdfConfig] = []
    monkeypatch.setattr("sdfgan.cli.train_sdf.train", lambda config: taken.append(config.resolved()) or {})
    line = (
        "--numLayers=10 --outputDir out --epochs 6 --batchSize 1024 --learningRate 0.001 --num_points 5000000 "
        "--init he_uniform --damArch 1 --scaler StandardScaler --validationRes 0 --showVis 1 --reconstructionRes 256"
    )
    assert main(["train-sdf", str(ball), *line.split()]) == 0
    (config,) = taken
    assert config.network == "mlp" and config.widths == DAM_WIDTHS and config.batch_size == 1024
    assert config.output_dir == Path("out") and config.scaler == "StandardScaler" and config.show_vis == 1
    field = make_field(config, (torch.randn(9, 3), torch.randn(9)), Placement((0.0, 0.0, 0.0), 1.0))
    assert len(field.net.layers) == 12


def test_presets_are_complete() -> None:
    for preset in PRESETS[True]:
        for network in ("hash", "mlp", "film-siren"):
            config = SdfConfig(preset=preset, network=network, device="cpu").resolved()  # type: ignore[arg-type]
            assert all(getattr(config, name) is not None for name in PRESETS[True]["low"])
            assert SdfConfig.from_json(config.to_json(), Path("config.json")) == config


def test_samples_in_both_layouts(tmp_path: Path) -> None:
    rows = np.array([[0.0, 0, 0, -1], [5, 0, 0, 4], [0, 3, 0, 2], [np.nan, 0, 0, 1]])
    np.savez(tmp_path / "a.npz", pos=rows[1:], neg=rows[:1])
    np.savez(tmp_path / "b.npz", points=rows[[1, 2, 3, 0], :3], sdf=rows[[1, 2, 3, 0], 3])
    (first, placement), (second, _) = (read_samples(tmp_path / name) for name in ("a.npz", "b.npz"))
    assert torch.equal(first.points, second.points) and torch.equal(first.distances, second.distances)
    assert len(first.points) == 3 and first.points.abs().max() == 1
    assert torch.allclose(placement.original(first.points[0]), torch.tensor([5.0, 0, 0]))
    assert first.distances[0].item() == pytest.approx(4 * placement.scale)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("none.stl", None, "none.stl: cannot be read"),
        ("a.npz", lambda path: path.write_bytes(b"PK"), "a.npz: not a readable .npz"),
        ("b.npz", lambda path: np.savez(path, points=np.zeros((3, 3))), "expected points .* and distances"),
        ("c.npz", lambda path: np.savez(path, points=np.zeros((3, 2)), distances=np.zeros(3)), "got shapes"),
        ("d.npz", lambda path: np.savez(path, points=np.array([None] * 3)), "not a readable .npz"),
        (
            "e.npz",
            lambda path: np.savez(path, points=np.full((3, 3), 5.0), distances=np.ones(3)),
            "all 3 points are one",
        ),
        ("f.npz", lambda path: np.savez(path, points=np.full((3, 3), 1e39), distances=np.ones(3)), "got 0 of 3"),
        ("g.npz", lambda path: np.savez(path, points=np.eye(3), distances=np.ones(3)), "holds no normals"),
        ("h.npz", lambda path: np.savez_compressed(path, sdf=np.zeros(2**10), note="x"), "claims 8,320 bytes"),
        ("folder", lambda path: path.mkdir(), "a folder without meshes"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, name: str, make: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdfgan.sdf.files._LARGEST", 8000)
    if make is not None:
        make(tmp_path / name)
    with pytest.raises(UserError, match=message) as error:
        train(tiny(tmp_path / name, tmp_path / "out", normal_weight=1.0))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "--epochs must be positive, got 0"),
        ({"learning_rate": 0.0}, "--learning-rate must be positive"),
        ({"network": "film-siren", "scaler": "StandardScaler"}, "--scaler is for --network hash and mlp"),
        ({"weighted": True, "sampling": "curvature"}, "--weighted: samples of --sampling curvature have no weights"),
        ({"together": 4, "eikonal_weight": 0.1}, "--together must be 1"),
        ({"log2_size": 40}, "--log2-size must be at most 28, got 40"),
        ({"finest": 2_000_000}, "--finest must be at most 1048576"),
        ({"octaves": 65}, "--octaves must be at most 64"),
        ({"seed": 10**14}, "--seed must be at most"),
        ({"mesh_resolution": 4096}, "--mesh-resolution must be at most 2048"),
    ],
)
def test_bad_settings(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SdfConfig(**{**TINY, **change}).resolved()


def test_not_a_model(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "none")
    (tmp_path / "model.safetensors").write_bytes(b"12345678")
    with pytest.raises(UserError, match=r"model.safetensors: not a readable model"):
        load(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="not a model that sdfgan train-sdf made"):
        load(tmp_path)
    with safe_open(run / "model.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["sdfgan-sdf"])
    for name, tensor in load_file(run / "model.safetensors").items():
        broken = {**load_file(run / "model.safetensors"), name: torch.full_like(tensor, torch.inf)}
        save_file(broken, tmp_path / "model.safetensors", {"sdfgan-sdf": json.dumps(metadata)})
        with pytest.raises(UserError, match=f"tensor {name} has values that are not finite"):
            load(tmp_path)
    for change, message in (
        ({"num_layers": 900, "width": 2**16}, "its tensors are not those of its configuration"),  # 15 TB
        ({"num_layers": None}, "of this version|makes no field"),
        ({"width": "x"}, 'width cannot be "x"'),
        ({"activation": "x"}, 'activation cannot be "x"'),
    ):
        changed = {**metadata, "config": {**metadata["config"], **change}}
        save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors", {"sdfgan-sdf": json.dumps(changed)})
        with pytest.raises(UserError, match=f"model.safetensors: .*({message})"):
            load(tmp_path)
    assert find_inputs(run / "mesh.glb") == ([run / "mesh.glb"], False)
