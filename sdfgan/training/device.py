"""Which device a command works on."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from sdfgan.errors import UserError


def resolve_device(name: str) -> torch.device:
    """The torch device that "auto", "cpu", "cuda" or "cuda:N" means here. Raises UserError if there is none.

    A GPU that is named by its number becomes torch's current one, so that nothing is put on another by accident.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(local_device(name))
    except RuntimeError:
        raise UserError(f"--device must be auto, cpu, cuda or cuda:N, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: this machine (or this build of torch) has no CUDA device")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise UserError(f"--device {name}: there are {torch.cuda.device_count()} CUDA devices")
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def generator_on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """`generator` where it is on that kind of device, else one there that it has seeded: nothing is copied there."""
    if generator.device.type == device.type:
        return generator
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    return torch.Generator(device).manual_seed(seed)


def autocast(device: torch.device, precision: str | None) -> AbstractContextManager[None]:
    """Products of networks in "bf16" or "fp16" within its block; as they are for "fp32"."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def device_name(device: torch.device) -> str:
    """What the device is called: "cpu", or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def device_here(saved: str, run: Path) -> str:
    """The device of a run that goes on: its own, or "auto" where this machine has no such one, which is said."""
    try:
        resolve_device(saved)
        return saved
    except UserError:
        print(f"{run}: was on {saved}, which is not available; continuing on the default device")
        return "auto"


def local_device(name: str) -> str:
    """The device of this process: with several, a GPU is the one of the local rank."""
    rank = os.environ.get("LOCAL_RANK")
    if name.startswith("cuda") and rank is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return f"cuda:{rank}"
    return name
