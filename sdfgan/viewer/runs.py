"""What a path holds that can be viewed, and what a run that goes on has newly written."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sdfgan.errors import UserError
from sdfgan.gan.models import Weights, load_generator
from sdfgan.meshes.read import READ_SUFFIXES
from sdfgan.nerf.models import load_model
from sdfgan.sdf import load
from sdfgan.sdf.model import MODEL
from sdfgan.training.checkpoint import kind_of, list_checkpoints, resolve_checkpoint
from sdfgan.training.files import add_to_curves, json_objects, read_errors
from sdfgan.viewer.generator import GeneratorScene
from sdfgan.viewer.scenes import FieldScene, MeshScene, NerfScene, Scene

_MESHES = ("mesh.glb", "mesh.ply", "mesh.obj", "mesh.stl")  # that a run may leave without a model


class Result(NamedTuple):
    """What there is to view of a path at some moment."""

    kind: str  # gan, nerf, sdf or mesh
    path: Path  # of a checkpoint, a model or a mesh
    changed: int  # when it was written


def find_result(path: Path) -> Result:
    """The newest result of a run folder, a checkpoint, a model's or a mesh's file. Raises UserError."""
    if path.suffix.lower() in READ_SUFFIXES and not path.is_dir():
        return _result("mesh", path)
    if path.name == MODEL and path.is_file():
        return _result("sdf", path)
    if (path / MODEL).is_file():
        return _result("sdf", path / MODEL)
    left = [path / name for name in _MESHES if (path / name).is_file()]
    if left and not list_checkpoints(path):
        return _result("mesh", left[0])
    checkpoint = resolve_checkpoint(path)
    kind = kind_of(checkpoint)
    if kind == "sdf":
        raise UserError(f"{path}: there is no {MODEL} yet; train-sdf writes it at its end")
    if kind not in ("gan", "nerf"):
        raise UserError(f"{checkpoint}: nothing to view in a checkpoint of kind {kind!r:.40}")
    return _result(kind, checkpoint)


def _result(kind: str, path: Path) -> Result:
    with read_errors(path):
        return Result(kind, path, path.stat().st_mtime_ns)


def open_scene(result: Result, device: torch.device, weights: Weights = "ema") -> Scene:
    """The scene of a result. Raises UserError."""
    kind, path, _ = result
    title = path.name
    if kind in ("gan", "nerf"):
        step = path.name.removeprefix("step-").lstrip("0")
        title = f"{path.absolute().parent.parent.name}, step {step or 0}"
    if kind == "mesh":
        return MeshScene(path)
    if kind == "sdf":
        return FieldScene(load(path, device), path.absolute().parent.name)
    if kind == "nerf":
        return NerfScene(*load_model(path, str(device)), title)
    generator, config = load_generator(path, weights)
    return GeneratorScene(generator.to(device), config, path, weights, title)


class Progress:
    """The numbers and samples of a run folder, as far as it has written them."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._read = 0  # bytes of metrics.jsonl
        self._values: dict[str, list[tuple[float, float]]] = {}
        self._lock = threading.Lock()

    @property
    def exists(self) -> bool:
        """Whether there is anything."""
        return (self.run / "metrics.jsonl").is_file()

    def curves(self, most: int = 500) -> dict[str, np.ndarray]:
        """Steps and values [2, N] of each number, N at most about `most`; names in order of appearance."""
        with self._lock:
            self._follow()
            thinned = {name: pairs[:: max(1, len(pairs) // most)] for name, pairs in self._values.items()}
        return {name: np.array(pairs, np.float64).T for name, pairs in thinned.items()}

    def newest_sample(self) -> Path | None:
        """The image of the last step in samples/."""
        return max((self.run / "samples").glob("step-*.png"), key=lambda path: path.name, default=None)

    def _follow(self) -> None:
        """Read the lines that are new and complete; those that are none are passed over, as they hold no numbers."""
        try:
            with (self.run / "metrics.jsonl").open("rb") as file:
                if file.seek(0, 2) < self._read:  # another run has begun here
                    self._read, self._values = 0, {}
                file.seek(self._read)
                new = file.read()
        except OSError:
            return
        new = new[: new.rfind(b"\n") + 1]
        self._read += len(new)
        add_to_curves(self._values, json_objects(new))
