"""Runs, curricula, samples and weights with something wrong in them: read, or refused in one line."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import random
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from safetensors.torch import save

import posed
from mutators import changed_bytes, changed_json, changed_tensors
from sdfgan.cli import main
from sdfgan.errors import UserError
from sdfgan.gan import load_generator
from sdfgan.nerf import load_model
from sdfgan.sdf.files import read_samples
from sdfgan.sdf.model import load

GAN = shlex.split(
    "--device cpu --shapes solids --dataset-size 64 --width 8 --mapping-width 8 --discriminator-channels 4 "
    "--evaluate-images 0 --mesh-resolution 0 --view-resolution 16 --video-frames 1 --steps 2 --march-steps 4"
)
SMALL = shlex.split("--resolution 16 --batch-size 4 --chunk-size 4 --latent-size 4")
SDF = shlex.split(
    "--device cpu --num-points 400 --epochs 2 --batch-size 100 --mesh-resolution 8 --levels 2 --finest 9 "
    "--log2-size 6 --no-metrics --checkpoint-seconds 1e-9 --scaler StandardScaler"
)
NERF = shlex.split(
    "--device cpu --hash-table 6 --hash-finest 9 --hash-levels 2 --grid-resolution 8 --march-steps 16 --samples 600 "
    "--rays 64 --chunk-size 64 --width 8 --warmup-steps 2 --steps 2 --video-frames 0 --mesh-resolution 0"
)
CURRICULUM = {
    "about": "finer",
    "settings": {
        "learning_rate_generator": 1e-3,
        "azimuth": [-10, 10],
        "poses": "uniform",
        "near_far": None,
        "latent_size": 4,
        "discriminator": "progressive",
    },
    "stages": [
        {"step": 0, "resolution": 16, "batch_size": 4},
        {"step": 1, "resolution": 32, "learning_rate_generator": 1e-4},
    ],
}
Dice = random.Random


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny run of each kind, gan, sdf and nerf, and what they learnt from."""
    root = tmp_path_factory.mktemp("sound")
    trimesh.creation.icosphere(1).export(root / "ball.stl")
    posed.blender_scene(root / "scene", 4, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDFGAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        assert main(["train-gan", *GAN, *SMALL, "--output-dir", str(root / "gan")]) == 0
        assert main(["train-sdf", str(root / "ball.stl"), *SDF, "--output-dir", str(root / "sdf")]) == 0
        assert main(["train-nerf", "--data", str(root / "scene"), *NERF, "--output-dir", str(root / "nerf")]) == 0
    # As if the run had been stopped two steps before its end.
    (root / "sdf" / "summary.json").unlink()
    for late in sorted((root / "sdf" / "checkpoints").iterdir())[1:]:
        shutil.rmtree(late)
    return root


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDFGAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def change_a_file(run: Path, dice: Dice, pattern: str) -> None:
    """One file of a run is another; the checksum of tensors is mostly right all the same."""
    path = dice.choice(sorted(path for path in run.glob(pattern) if path.suffix in (".json", ".jsonl", ".safetensors")))
    if path.suffix == ".json":
        data = changed_json(json.loads(path.read_bytes()), dice)
    elif path.suffix == ".jsonl":
        data = changed_bytes(b'{"step": 1, "loss": 2}\n{"step": 2, "loss": null}\n', dice)
    else:
        data = changed_tensors(path.read_bytes(), dice)
    path.write_bytes(data)
    if path.name == "tensors.safetensors" and dice.random() < 0.8:
        state = json.loads((path.parent / "state.json").read_bytes())
        (path.parent / "state.json").write_text(json.dumps({**state, "sha256": hashlib.sha256(data).hexdigest()}))


def samples(dice: Dice) -> bytes:
    """An .npz with arrays of odd types, shapes and values, or with other bytes."""
    random_ = np.random.default_rng(dice.randrange(10**6))
    arrays: dict[str, Any] = {"points": random_.random((20, 3)), "sdf": random_.random(20), "weights": np.ones(20)}
    if dice.random() < 0.3:
        arrays = {"pos": random_.random((20, 4)), "neg": random_.random((9, 4)).astype("f4")}
    changes: list[Callable[[np.ndarray], np.ndarray]] = [
        lambda a: a[:-1], lambda a: a.astype("U5"), lambda a: a.astype(complex), lambda a: a * np.nan,
        lambda a: a.astype(">f2"), lambda a: a.reshape(-1), lambda a: a.astype("u1"), lambda a: a.astype("M8[s]"),
        lambda a: a * 1e300, lambda a: a.astype(object), lambda a: a[:0],
    ]  # fmt: skip
    if dice.random() < 0.6:
        name = dice.choice(list(arrays))
        arrays[name] = dice.choice(changes)(arrays[name])
    buffer = io.BytesIO()
    dice.choice((np.savez, np.savez_compressed))(buffer, **arrays)
    return buffer.getvalue() if dice.random() < 0.3 else changed_bytes(buffer.getvalue(), dice)


@functools.cache
def foreign_weights() -> bytes:
    """Of dfr's generator, by its names."""
    shapes = {f"layers.{i}.linear": (8, 3 if i == 0 else 8) for i in range(4)}
    shapes |= {f"{part}.{i}.linear": (8, 8) for part in ("sdfLayers", "txLayers") for i in range(3)}
    shapes |= {"sdfLayers.3": (1, 8), "txLayers.3": (3, 8), "film.0": (5, 4), "film.2": (5, 5), "film.4": (16, 5)}
    torch.manual_seed(0)
    tensors = {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    return save(tensors | {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()})


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
    """Raises UserError with its line for status 2; fails for any other than 0."""
    capsys.readouterr()
    status = main(list(arguments))
    said = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    if status == 2 and len(said) == 1:
        raise UserError(said[0])
    assert status == 0 and not said


Capture = pytest.CaptureFixture[str]
CHECKPOINT = "checkpoints/*/*"
# Name: how many, the sound run, which of its files, and what reads them.
READERS: dict[str, tuple[int, str, str, Callable[[Path, Capture], Any]]] = {
    "generator": (368, "gan", CHECKPOINT, lambda run, _: load_generator(run)),
    "field": (350, "sdf", "model.safetensors", lambda run, _: load(run)),
    "scene model": (300, "nerf", CHECKPOINT, lambda run, _: load_model(run)),
    "gan": (60, "gan", "**/*", lambda run, said: command(said, "train-gan", "--resume", str(run), "--dry-run")),
    "gan goes on": (
        20, "gan", CHECKPOINT, lambda run, said: command(said, "train-gan", "--resume", str(run), "--steps", "3"),
    ),
    "nerf goes on": (40, "nerf", CHECKPOINT, lambda run, said: command(said, "train-nerf", "--resume", str(run))),
    "sdf goes on": (24, "sdf", "**/*", lambda run, said: command(said, "train-sdf", "--resume", str(run))),
    "samples": (388, "", "a.npz", lambda file, _: read_samples(file)),
    "curriculum": (
        300, "", "a.json",
        lambda file, said: command(
            said, "train-gan", *GAN, f"--curriculum={file}", "--dry-run", f"--output-dir={file.parent / 'o'}"
        ),
    ),
    "weights": (
        150, "", "a.safetensors",
        lambda file, said: command(said, "import-weights", str(file), str(file.parent / "run")),
    ),
}  # fmt: skip
FILES: dict[str, Callable[[Dice], bytes]] = {
    "samples": samples,
    "curriculum": lambda dice: changed_json(CURRICULUM, dice),
    "weights": lambda dice: changed_tensors(foreign_weights(), dice),
}


def test_there_are_two_thousand() -> None:
    assert sum(count for count, *_ in READERS.values()) == 2000


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
@pytest.mark.filterwarnings("ignore")
def test_mutants_are_read_or_refused(kind: str, runs: Path, tmp_path: Path, capsys: Capture) -> None:
    count, name, pattern, read = READERS[kind]
    sound = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    before, dice = sorted(runs.rglob("*")), Dice(f"{kind} 1")
    taken = refused = 0
    for i in range(count):
        folder = tmp_path / str(i)
        if name:
            shutil.copytree(runs / name, folder)
            change_a_file(folder, dice, pattern)
            found = folder
        else:
            folder.mkdir()
            found = folder / pattern
            found.write_bytes(FILES[kind](dice))
        begin = time.process_time()
        try:
            read(found, capsys)
            taken += 1
        except UserError as error:
            words = str(error)
            assert "\n" not in words and len(words) < 20_000 and "object is not" not in words and "codec" not in words
            refused += 1
        assert time.process_time() - begin < 20, (kind, i)
        assert set(tmp_path.iterdir()) == {folder}
        shutil.rmtree(folder)
    assert sorted(runs.rglob("*")) == before and all(path.read_bytes() == data for path, data in sound.items())
    assert taken > 1 and refused > 1


def nested(depth: int = 100_000) -> str:
    return "[" * depth + "]" * depth


STATES = [
    ("gan", "step", "-1", "step must be a number of steps, got -1"),
    ("gan", "step", "true", "step must be a number of steps, got True"),
    ("gan", "elapsed_seconds", '"x"', "elapsed_seconds must be a time, got 'x'"),
    ("gan", "loss_scale", "Infinity", "not a checkpoint of this version: loss_scale inf"),
    ("gan", "loss_scale", "1e400", "not a checkpoint of this version: loss_scale inf"),
    ("gan", "skipped_in_a_row", "null", "skipped_in_a_row must be counts by name, got None"),
    ("gan", "good_steps", "Infinity", "inf is not a number of steps"),
    ("gan", "augmented", "NaN", "augmented nan"),
    ("gan", "start", "[1]", r"start must be scores by name, got \[1\]"),
    ("gan", "config", nested(), "not a readable checkpoint: it is nested too deeply"),
    ("gan", "config.omega_first", "1e308", "--omega-first must be at most 1000"),
    ("gan", "config.width", "1" + "0" * 400, "--width must be at most"),
    ("gan", "config.seed", "1.5", "seed cannot be 1.5"),
    ("gan", "config.steps", "null", "steps is missing"),
    ("gan", "config.background", '"white"', 'background cannot be "white"'),
    ("nerf", "elapsed_seconds", "NaN", "elapsed_seconds must be a time, got nan"),
    ("nerf", "rays_now", "0", "not a checkpoint of this version: rays_now 0"),
    ("nerf", "config.learning_rate", "Infinity", "--learning-rate must be finite, got inf"),
    ("nerf", "config.learning_rate", "1e40", "--learning-rate must be at most 1e"),
    ("nerf", "config.width", "true", "width cannot be true"),
    ("nerf", "config.data", '"\\u0000"', "data cannot be"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "field", "value", "said"), STATES)
def test_values_of_checkpoints(
    name: str, field: str, value: str, said: str, runs: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = shutil.copytree(runs / name, tmp_path / "run")
    (file,) = run.glob("checkpoints/*/state.json")
    state = json.loads(file.read_text())
    *above, last = field.split(".")
    (state[above[0]] if above else state)[last] = "the value"
    file.write_text(json.dumps(state).replace('"the value"', value))
    with pytest.raises(UserError, match=said):
        command(capsys, f"train-{name}", "--resume", str(run), "--dry-run")


def test_values_of_curricula(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    arguments = ("train-gan", *GAN, f"--curriculum={file}", "--dry-run", f"--output-dir={tmp_path / 'o'}")
    file.write_text(json.dumps(CURRICULUM), encoding="utf-16")
    command(capsys, *arguments)
    for settings, stage, said in (
        ({"near_far": [1]}, {}, r"near_far must be \[float, float\] or null, got \[1\]"),
        ({"azimuth": None}, {}, r"azimuth must be \[float, float\], got null"),
        ({"omega_first": 1e308}, {}, "--omega-first must be at most 1000"),
        ({}, {"batch_size": 0}, "--batch-size must be positive, got 0"),
    ):
        stages = [{**CURRICULUM["stages"][0], **stage}, CURRICULUM["stages"][1]]  # type: ignore[index, dict-item]
        file.write_text(json.dumps({"settings": {**CURRICULUM["settings"], **settings}, "stages": stages}))
        with pytest.raises(UserError, match=said):
            command(capsys, *arguments)
