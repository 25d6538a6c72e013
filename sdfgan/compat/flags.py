"""Flags of the older projects whose command lines people know: each works, or says what has replaced it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from sdfgan.errors import UserError


class Old(NamedTuple):
    """A flag of old: how many values it takes, the arguments that stand for it now ({} is its value), and why."""

    values: int
    now: tuple[str, ...]
    note: str = ""


def _renamed(flag: str) -> Old:
    return Old(1, (flag, "{}"), f"is now {flag}")


_BATCHES = Old(1, (), "is obsolete: batches are as large as memory is sure to allow")
_CURRICULUM = Old(1, (), "is obsolete: a run stores its own settings")
_LOOKING = {
    "--image-size": _renamed("--resolution"),
    "--num-steps": _renamed("--samples"),
    "--max-batch-size": _BATCHES,
    "--num-frames": _renamed("--frames"),
    "--depth-map": Old(0, ("--show", "depth"), "is now --show depth"),
    "--curriculum": _CURRICULUM,
}
_CHECKPOINTS = "is obsolete: --resume RUN continues the newest checkpoint, or names one"
_CHECKPOINT_OF_RUN = {
    flag: Old(1, (), "is obsolete: RUN, the first argument, is a run folder or one of its checkpoints")
    for flag in ("-v", "--ckpt", "-e", "--epoch")
}
_RUNS = Old(1, (), "is obsolete: --output-dir is the folder of the run itself, a new one in runs by default")
_PLACES = Old(1, (), "is obsolete: DATA and OUTPUT come after the action, without flags")

_DECAY = Old(1, (), "is obsolete: --learning-rate-final is the share of --learning-rate at the end")
_APEX = Old(1, (), "is obsolete: --precision says what products are made in")

OLD_FLAGS: dict[str, dict[str, Old]] = {
    "train-gan": {
        "--port": Old(1, (), "is obsolete: torchrun chooses a port (--master-port)"),
        "--n-epochs": Old(1, (), "is obsolete: the length of a run is --steps"),
        "--model-save-interval": _renamed("--checkpoint-interval"),
        "--eval-freq": _renamed("--evaluate-interval"),
        "--set-step": Old(1, (), "is obsolete: --resume knows its step"),
        "-d": _renamed("--data"),
        "-r": _RUNS,
        "--run-dir": _RUNS,
        "-v": Old(1, (), _CHECKPOINTS),
        "--ckpt": Old(1, (), _CHECKPOINTS),
        "-e": Old(1, (), _CHECKPOINTS),
        "--epoch": Old(1, (), _CHECKPOINTS),
        "-f": Old(1, (), "is obsolete: --load-dir RUN starts another run from one"),
        "--fork": Old(1, (), "is obsolete: --load-dir RUN starts another run from one"),
        "--override-hp": Old(0, (), "is obsolete: --load-dir RUN with other settings starts another run"),
        "--no-log": Old(0, ("--dry-run",), "is now --dry-run"),
        "--profile": Old(0, (), "is obsolete: benchmarks/bench.py says where time goes"),
    },
    "train-nerf": {
        "-s": Old(0, ("--precision", "amp"), "is now --precision amp"),
        "--use-scaler": Old(0, ("--precision", "amp"), "is now --precision amp"),
        "--opt-level": _APEX,
        "--opt-mode": _APEX,
        "-t": Old(0, ("--model", "ref-nerf"), "is now --model ref-nerf"),
        "--ref-nerf": Old(0, ("--model", "ref-nerf"), "is now --model ref-nerf"),
        "-u": Old(0, ("--srgb",), "is now --srgb"),
        "--use-srgb": Old(0, ("--srgb",), "is now --srgb"),
        "-w": Old(0, ("--background", "white"), "is now --background white"),
        "--white-bkg": Old(0, ("--background", "white"), "is now --background white"),
        "-r": Old(0, (), "is obsolete: every run ends with an orbit (--video-frames)"),
        "-e": Old(0, (), "is obsolete: every run ends with scores of its validation and test views"),
        "-l": Old(0, (), "is obsolete: --resume RUN continues the newest checkpoint, or names one"),
        "-d": Old(0, (), "is obsolete: each run has a folder of its own (--output-dir)"),
        "--name": Old(1, ("--output-dir", "runs/{}"), "is now --output-dir"),
        "--epochs": Old(1, (), "is obsolete: the length of a run is --steps"),
        "--sample-ray-num": _renamed("--rays"),
        "--coarse-sample-pnum": _renamed("--coarse-samples"),
        "--fine-sample-pnum": _renamed("--fine-samples"),
        "--prop-net-width": _renamed("--proposal-width"),
        "--nerf-net-width": _renamed("--width"),
        "--img-scale": _renamed("--image-scale"),
        "--warmup-step": _renamed("--warmup-steps"),
        "--min-ratio": _renamed("--learning-rate-final"),
        "--decay-rate": _DECAY,
        "--decay-step": _DECAY,
        "--center-crop-iter": _renamed("--center-crop-steps"),
        "--ide-level": _renamed("--ide-levels"),
        "--bottle-neck-noise": _renamed("--bottleneck-noise"),
        "--eval-time": Old(1, (), "is obsolete: --evaluate-interval counts steps"),
        "--output-time": Old(1, (), "is obsolete: --evaluate-interval counts steps"),
        "--max-save": Old(1, (), "is obsolete: the newest three checkpoints are kept"),
    },
    "render": {
        **_LOOKING,
        "--trajectory": _renamed("--mode"),
        "--output-dir": Old(1, ("--mode", "images", "--output", "{}"), "is now --mode images --output"),
    },
    "interpolate": {
        **_LOOKING,
        "--output-dir": Old(1, ("--output", "{}/interpolation.mp4"), "is now --output"),
        "--trajectory": Old(1, (), "is obsolete: --turns is how often the camera goes round"),
    },
    "extract-mesh": {
        "--seed": _renamed("--seeds"),
        "--voxel-resolution": _renamed("--mesh-resolution"),
        "--cube-size": Old(1, (), "is obsolete: objects are in the unit sphere"),
        "--max-batch-size": _BATCHES,
        "--num-steps": Old(1, (), "is obsolete: a mesh is made without rays"),
        "-r": _renamed("--mesh-resolution"),
        **_CHECKPOINT_OF_RUN,
        "--curriculum": _CURRICULUM,
    },
    "evaluate": {
        "--real-image-dir": _renamed("--real"),
        "--num-images": _renamed("--images"),
        "--output-dir": Old(1, ("--output", "{}/evaluation.json"), "is now --output"),
        "--max-batch-size": _BATCHES,
        "--num-steps": _CURRICULUM,
        "--dataset": Old(1, (), "is obsolete: --real is a folder of images, or those held out are taken"),
        "--img-size": Old(1, (), "is obsolete: images have the size that the run learned from"),
        "--num-imgs": _renamed("--images"),
        "--curriculum": _CURRICULUM,
    },
    "invert": {
        "--image-size": _renamed("--resolution"),
        "--num-frames": _renamed("--frames"),
        "--max-batch-size": _BATCHES,
        "--num-steps": _renamed("--samples"),
        "--curriculum": _CURRICULUM,
    },
    "dataset": {
        "-d": _PLACES,
        "-o": _PLACES,
        "--random-count": _renamed("--views-per-object"),
    },
}


def _kebab(argument: str) -> str:
    """--camelCase, which Neural Implicit Tools spoke, as --camel-case; anything else as it is."""
    flag, equals, value = argument.partition("=")
    if re.fullmatch(r"--[a-z]+([A-Z][a-z]*)+", flag) is None:
        return argument
    return re.sub("[A-Z]", lambda letter: f"-{letter[0].lower()}", flag) + equals + value


def translate(command: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The present arguments, and what to say about each old flag among those given.

    Raises UserError for one that has lost its value.
    """
    known = dict(OLD_FLAGS.get(command, {}))
    trajectory = re.search(r"(?:^|\s)--trajectory(?:=|\s)(\w+)", " ".join(arguments))
    if command == "render" and trajectory:  # videos: where a folder was meant for them, not for single images
        known["--output-dir"] = Old(1, ("--output", f"{{}}/{trajectory[1]}.mp4"), "is now --output")
    now: list[str] = []
    notes: list[str] = []
    rest = list(arguments)
    while rest:
        given = _kebab(rest.pop(0))
        flag, equals, value = given.partition("=")
        old = known.get(flag.replace("_", "-"))
        if old is None:
            now.append(given)
            continue
        notes.append(f"{flag} {old.note}")
        if old.values and not equals and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        if not value and any("{}" in part for part in old.now):
            raise UserError(f"{flag}, which {old.note}, needs a value")
        now += [part.format(value) for part in old.now]
    return now, notes
