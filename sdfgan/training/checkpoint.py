"""Checkpoints: a folder with tensors.safetensors and state.json. Nothing is ever pickled or unpickled.

A checkpoint appears whole or not at all, and older ones are removed only after it is there.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sdfgan.errors import UserError, one_line
from sdfgan.training.files import PARTIAL, atomic_folder, disk_errors, parse_json

FORMAT = 1
_WEIGHTS = (".safetensors", ".pth", ".pt")  # suffixes of what another project may have saved
_TENSORS, _STATE = "tensors.safetensors", "state.json"
_MAX_STEP = 10**15
KEPT = 3  # checkpoints of a run
_NAME = re.compile(r"step-(\d{7,})")


class Saved(NamedTuple):
    """A checkpoint that has been read."""

    folder: Path
    tensors: dict[str, Tensor]
    state: dict[str, Any]

    @property
    def run(self) -> Path:
        """The folder of its run."""
        return self.folder.parent.parent


def read_checkpoint(path: Path) -> Saved:
    """A checkpoint, or the newest one of a run folder. Raises UserError for what is missing or damaged."""
    folder = resolve_checkpoint(path)
    return Saved(folder, *load_checkpoint(folder))


def save_checkpoint(run: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any], keep: int = KEPT) -> Path:
    """Write `run`/checkpoints/step-N, then remove all but the newest `keep`. Returns the folder.

    `state` is what JSON can hold. Raises UserError where the disk is full or not writable: then older ones are intact.
    """
    folder = run / "checkpoints" / f"step-{step:07d}"
    with atomic_folder(folder) as partial:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial / _TENSORS)
        digest = _sha256(partial / _TENSORS)
        header = {"format": FORMAT, "step": step, "sha256": digest}
        (partial / _STATE).write_text(json.dumps({**header, **state}, indent=2) + "\n")
    remove_old(run, keep)
    return folder


def list_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    folder = run / "checkpoints"
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.name[5:]))


def remove_old(run: Path, keep: int = KEPT) -> None:
    """Remove all checkpoints but the newest `keep`. One that is removed is none from the first moment on."""
    for old in list_checkpoints(run)[:-keep]:
        with suppress(OSError):  # on a full disk there may be no room for another name
            old = old.rename(old.with_name(old.name + PARTIAL))
        shutil.rmtree(old, ignore_errors=True)


def remove_partial(run: Path) -> None:
    """Remove what an earlier process was writing, or removing, when it died."""
    for path in (run / "checkpoints").glob(f"*{PARTIAL}"):
        shutil.rmtree(path, ignore_errors=True)


def set_aside_after(run: Path, step: int) -> None:
    """Rename checkpoints past `step`, from which a run now goes on another way, to superseded-step-N."""
    for old in list_checkpoints(run):
        if int(old.name[5:]) > step:
            aside = old.with_name(f"superseded-{old.name}")
            with disk_errors(aside):
                if aside.exists():
                    shutil.rmtree(aside)
                old.rename(aside)


def resolve_checkpoint(path: Path) -> Path:
    """The checkpoint that `path` means: itself, or the newest of the run folder it is. Raises UserError."""
    if (path / _STATE).exists() or (path / _TENSORS).exists() or _NAME.fullmatch(path.name):
        return path if path.parent.name == "checkpoints" else path.resolve()  # so that its run can be told
    if not path.exists():
        raise UserError(f"{path}: no such run or checkpoint folder")
    if path.is_file():
        foreign = f"; weights of other projects: sdfgan import-weights {path} RUN" * (path.suffix in _WEIGHTS)
        raise UserError(f"{path}: a file, expected a run folder{foreign}")
    checkpoints = list_checkpoints(path)
    if not checkpoints:
        fitted = (path / "model.safetensors").exists()
        of_a_mesh = "; this is one of train-sdf: render, extract-mesh and view take it" * fitted
        raise UserError(f"{path}: expected a run folder with checkpoints/, or a checkpoint folder{of_a_mesh}")
    return checkpoints[-1]


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and state of a checkpoint. Raises UserError, naming the file, if it is not whole."""
    try:
        state = _read_state(folder)
        if _sha256(folder / _TENSORS) != state.get("sha256"):
            raise UserError(f"{folder / _TENSORS}: damaged, its checksum is not that in {_STATE}{_others(folder)}")
        if type(state.get("step")) is not int or not 0 <= state["step"] <= _MAX_STEP:
            raise UserError(f"{folder / _STATE}: step must be a number of steps, got {state.get('step')!r:.50}")
        return load_file(folder / _TENSORS), state
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: missing from the checkpoint{_others(folder)}") from error
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"{folder}: not a readable checkpoint: {one_line(error)}{_others(folder)}") from error


def kind_of(path: Path) -> str:
    """What has trained the run of a run folder or checkpoint folder: gan, nerf or sdf. Raises UserError."""
    folder = resolve_checkpoint(path)
    try:
        return str(_read_state(folder).get("kind"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: not a readable checkpoint: {one_line(error)}{_others(folder)}") from error


def _read_state(folder: Path) -> dict[str, Any]:
    state = parse_json((folder / _STATE).read_bytes())
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{folder / _STATE}: expected a checkpoint of format {FORMAT}{_others(folder)}")
    return state


def elapsed_seconds(state: dict[str, Any], folder: Path) -> float:
    """The time that a run has taken so far. Raises UserError, naming the checkpoint, where it is none."""
    seconds: Any = state.get("elapsed_seconds")
    if type(seconds) not in (int, float) or not 0 <= seconds < _MAX_STEP:
        raise UserError(f"{folder / _STATE}: elapsed_seconds must be a time, got {seconds!r:.50}")
    return float(seconds)


def log_so_far(state: dict[str, Any], folder: Path) -> tuple[list[int], dict[str, list[float]]]:
    """The lengths of each metrics.jsonl, bytes, and the numbers since its last line; earlier versions kept neither.

    Raises UserError, naming the checkpoint, where they are none.
    """
    log = state.get("log", {"lengths": [], "since": {}})
    try:
        lengths = [int(length) for length in log["lengths"]]
        return lengths, {str(name): [float(x) for x in values] for name, values in log["since"].items()}
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
        raise UserError(f"{folder / _STATE}: log must have lengths and numbers, got {log!r:.50}") from None


def _others(folder: Path) -> str:
    """What to do about a bad checkpoint."""
    others = [path for path in list_checkpoints(folder.parent.parent) if path != folder]
    whole = [path for path in others if (path / _STATE).is_file() and (path / _TENSORS).is_file()]
    return f"; another checkpoint is {whole[-1]}" if whole else ""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# ------------------------------------------------------------------------- things with state, as tensors with a prefix


def pack_module(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """A module's parameters and buffers as {prefix.name: tensor}."""
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}


def unpack_module(module: nn.Module, tensors: dict[str, Tensor], prefix: str, source: Path) -> None:
    """Undo `pack_module`. Raises UserError, naming `source`, if anything is missing, spare, of another shape
    or not finite.
    """
    given = _under(tensors, prefix)
    wanted = module.state_dict()
    for name in sorted(wanted.keys() | given.keys()):
        if name not in given or name not in wanted:
            problem = "missing" if name not in given else "unexpected"
            raise UserError(f"{source}: tensor {prefix}.{name} is {problem}")
        if given[name].shape != wanted[name].shape:
            raise UserError(
                f"{source}: tensor {prefix}.{name} must be {list(wanted[name].shape)}, got {list(given[name].shape)}"
            )
    require_finite({f"{prefix}.{name}": tensor for name, tensor in given.items()}, source)
    module.load_state_dict(given)


def require_finite(tensors: dict[str, Tensor], source: Path) -> None:
    """Raises UserError, naming `source` and tensor, where a number is none."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{source}: tensor {name} has values that are not finite")


def pack_optimizer(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The state of an optimiser whose state is tensors (as Adam's is), as {prefix.parameter.name: tensor}."""
    state = optimizer.state_dict()["state"]
    return {f"{prefix}.{i}.{name}": tensor for i, slots in state.items() for name, tensor in slots.items()}


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str, source: Path) -> None:
    """Undo `pack_optimizer`; learning rates stay those of `optimizer`. Raises UserError for what does not fit."""
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in _under(tensors, prefix).items():
        index, _, slot = name.partition(".")
        if not index.isdigit() or int(index) >= len(parameters):
            raise UserError(f"{source}: tensor {prefix}.{name} belongs to no parameter: there are {len(parameters)}")
        wanted = parameters[int(index)].shape
        if tensor.ndim > 0 and tensor.shape != wanted:
            raise UserError(f"{source}: tensor {prefix}.{name} must be {list(wanted)}, got {list(tensor.shape)}")
        if tensor.ndim > 0:  # laid out as its parameter, which fused optimisers rely on
            tensor = torch.empty_like(parameters[int(index)]).copy_(tensor)
        state.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def pack_generator_state(generator: torch.Generator, prefix: str) -> dict[str, Tensor]:
    """The state of a random generator as one tensor."""
    return {f"{prefix}.state": generator.get_state()}


def unpack_generator_state(generator: torch.Generator, tensors: dict[str, Tensor], prefix: str, source: Path) -> None:
    """Undo `pack_generator_state`."""
    try:
        generator.set_state(tensors[f"{prefix}.state"])
    except (KeyError, RuntimeError, TypeError) as error:
        raise UserError(f"{source}: {prefix}.state is not the state of a random generator") from error


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}
