"""What `kills.py` interrupts: each trainer and long command at a tiny size, and what must be left when it has ended."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import trimesh
from PIL import Image

from sdfgan.training.checkpoint import list_checkpoints, load_checkpoint
from surfaces import posed_scene

LEFTOVERS = re.compile(r"\.partial|^\.tmp|^\.mode-|\.rendering")  # names of what is still being written
_LOGS = re.compile(r"events\.|report\.html$|state\.json$")  # of these there must be some, with times in them
_TIMES = re.compile(r"seconds|checkpoint|command")  # numbers of a summary that no two runs share, and where it resumed

GAN = """--device cpu --steps 4 --resolution 16 --batch-size 4 --chunk-size 2 --width 8 --mapping-width 8
    --latent-size 4 --discriminator-channels 4 --discriminator-max-channels 8 --march-steps 6 --dataset-size 32
    --evaluate-images 8 --sample-interval 3 --evaluate-interval 2 --checkpoint-interval 1 --view-resolution 16
    --video-frames 2 --video-format gif --mesh-resolution 12"""
NERF = """--device cpu --steps 4 --rays 64 --chunk-size 32 --width 16 --warmup-steps 2 --checkpoint-interval 1
    --evaluate-interval 2 --evaluate-views 1 --video-frames 2 --video-format gif --mesh-resolution 12"""
GRID = "--hash-table 10 --hash-finest 16 --hash-levels 4 --grid-resolution 8 --march-steps 16 --samples 500"
SDF = """--device cpu --num-points 1500 --epochs 2 --batch-size 500 --mesh-resolution 12 --levels 2 --finest 8
    --log2-size 9 --checkpoint-seconds 0.001 --no-metrics"""


class Case(NamedTuple):
    """A command, whose last word is the folder or file that it makes."""

    name: str
    command: str
    again: str | None = None  # what goes on once there is `begun`, the run's folder left out; None: the same command
    begun: str = "checkpoints/step-*[0-9]"
    output: str = "run"

    def words(self, data: Path, folder: Path) -> list[str]:
        """The command that a user would give now."""
        run = folder / self.output
        if self.again is not None and any(run.glob(self.begun)):
            return [*self.again.split(), str(run)]
        return [word.format(data=data, run=run) for word in self.command.split()]


CASES = [
    Case("train-gan", f"train-gan {GAN} --output-dir {{run}}", "train-gan --resume"),
    Case("train-gan pi-gan", f"train-gan {GAN} --generator pi-gan --trunk-layers 2 --sample-interval 100"
         " --march-steps 3 --output-dir {run}",
         "train-gan --resume"),
    Case("train-sdf", f"train-sdf {{data}}/meshes/box.ply {SDF} --show-vis 1 --video-frames 2 --video-format gif"
         " --output-dir {run}", "train-sdf --resume", "config.json"),
    Case("train-sdf, a folder", f"train-sdf {{data}}/meshes {SDF} --together 2 --output-dir {{run}}"),
    Case("train-nerf fast", f"train-nerf --data {{data}}/scene --model fast {NERF} {GRID} --output-dir {{run}}",
         "train-nerf --resume"),
    Case("train-nerf surface", f"train-nerf --data {{data}}/scene --model surface {NERF} {GRID} --output-dir {{run}}",
         "train-nerf --resume"),
    Case("train-nerf nerf", f"train-nerf --data {{data}}/scene --model nerf {NERF} --layers 1 --octaves 3"
         " --coarse-samples 4 --fine-samples 4 --output-dir {run}", "train-nerf --resume"),
    Case("invert", "invert {data}/gan {data}/scene/00000/img00000000.png --device cpu --resolution 16 --candidates 4"
         " --starts 1 --latent-steps 2 --code-steps 2 --mesh-resolution 12 --view-resolution 16 --frames 2"
         " --video-format gif --output-dir {run}"),
    Case("fit-image", "fit-image {data}/meshes/box.ply --device cpu --resolution 16 --views 4 --views-per-step 1"
         " --steps 4 --width 8 --video-frames 2 --video-format gif --mesh-resolution 12 --output-dir {run}"),
    Case("dataset render", "dataset render {data}/meshes {run} --views 2 --resolution 16 --supersample 1"
         " --held-out 0.4", output="set.zip"),
    Case("dataset convert", "dataset convert {data}/scene --resolution 16 {run}", output="set.zip"),
    Case("dataset convert to a folder", "dataset convert {data}/scene --resolution 16 {run}", output="set"),
]  # fmt: skip


def make_data(folder: Path, cases: Sequence[Case], run: Callable[[list[str]], None]) -> None:
    """What the cases read: meshes, photographs of one, and a GAN."""
    needed = " ".join(case.command for case in cases)
    (folder / "meshes").mkdir(parents=True)
    for name, sides in (("box", (0.6, 1.0, 0.8)), ("cube", (1, 1, 1)), ("slab", (1, 0.4, 0.7))):
        trimesh.creation.box(sides).export(folder / "meshes" / f"{name}.ply")
    if "{data}/scene" in needed:
        posed_scene(folder / "meshes" / "box.ply", folder / "scene", 4, 1, 16)
    if "{data}/gan" in needed:
        run([word.format(run=folder / "gan") for word in CASES[0].command.split()])


def contents(folder: Path, unfinished: bool = False) -> dict[str, Any]:
    """What is in a finished folder, by name: digests of files, the numbers of logs, without times and its own path.

    Raises AssertionError for what is not whole (a checkpoint, a file of JSON, an image, an archive), and for what is
    temporary; where the command was stopped by an error, `dataset render` keeps what it has rendered.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        kept = unfinished and path.name.endswith(".rendering")
        assert kept or not LEFTOVERS.search(path.name), f"{name} was left behind"
        if path.is_dir() or ".rendering/" in name:
            continue
        if "checkpoints/" in name or re.match(r"events\.", path.name):
            continue
        data = path.read_bytes().replace(str(folder).encode(), b"FOLDER")
        if _LOGS.search(path.name):
            found[name] = len(data) > 0
        elif path.suffix == ".jsonl":
            found[name] = _log(data.decode())
        elif path.suffix == ".json":
            found[name] = _timeless(json.loads(data))
        else:
            found[name] = hashlib.sha256(data).hexdigest()
            _check_whole(path)
    for run in {path.parent for path in folder.rglob("checkpoints")}:
        checkpoints = list_checkpoints(run)
        most = 4 if unfinished else 3  # the oldest is removed once the newest is there
        assert len(checkpoints) <= most, f"more than {most} checkpoints: {[path.name for path in checkpoints]}"
        for checkpoint in checkpoints:
            tensors, state = load_checkpoint(checkpoint)  # or says what is wrong with it
        if checkpoints and state.get("kind") != "sdf":  # whose checkpoints depend on the time
            name = checkpoints[-1].relative_to(folder).as_posix()
            found[name] = state["sha256"], len(tensors)
    return found


def _log(text: str) -> list[tuple[int, list[str], Any]]:
    """Steps and names of the numbers of metrics.jsonl, and those that are no means since the line before."""
    lines = [json.loads(line) for line in text.splitlines()]
    return [(line["step"], sorted(line), line if any("/" in name for name in line) else None) for line in lines]


def _timeless(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _timeless(value) for name, value in values.items() if not _TIMES.search(name)}
    return values


def _check_whole(path: Path) -> None:
    if path.suffix in (".png", ".gif"):
        with Image.open(path) as image:
            for frame in range(getattr(image, "n_frames", 1)):
                image.seek(frame)
                image.load()
    elif path.suffix == ".zip":
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                archive[name]
