"""Several processes that train one model: what `torchrun` starts, and the single process that is a special case of it.

Gradients are averaged by hand rather than by DistributedDataParallel's hooks: these fire in `backward`, and training
uses `torch.autograd.grad` for chunks that run in parallel, for penalties, and for two networks in one step. Everything
random is drawn alike in all processes, and each takes its share, so a run does not depend on their number.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sdfgan.errors import UserError, one_line

_PATIENCE = timedelta(minutes=30)  # the first process may be making a data set


class Ranks:
    """This process among those of the run."""

    def __init__(self, rank: int = 0, count: int = 1, owns_group: bool = False) -> None:
        self.rank, self.count, self._owns_group = rank, count, owns_group

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def share(self, items: Sequence) -> Sequence:
        """This process's contiguous part of `items`, whose number is a multiple of the processes'."""
        size = len(items) // self.count
        return items[self.rank * size : (self.rank + 1) * size]

    def average(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The mean over all processes of each tensor, in one message."""
        if self.count == 1:
            return list(tensors)
        message = torch.cat([tensor.flatten() for tensor in tensors])
        _together(dist.all_reduce, message)
        parts = (message / self.count).split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors [N, ...] of all processes (the same N everywhere), one after the other."""
        if self.count == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.count)]
        _together(dist.all_gather, parts, tensor.contiguous())
        return torch.cat(parts)

    def largest(self, value: int, device: torch.device) -> int:
        """The largest of every process's value."""
        if self.count == 1:
            return value
        message = torch.tensor([value], device=device)
        _together(dist.all_reduce, message, dist.ReduceOp.MAX)
        return int(message)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            _together(dist.barrier)

    def part(self) -> None:
        """Until all processes are here; from then on each is alone, and waits for no other."""
        self.wait()
        if self._owns_group:
            dist.destroy_process_group()
        self.count, self._owns_group = 1, False

    def broadcast(self, modules: Sequence[nn.Module]) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.count > 1:
            for tensor in _states(modules):
                message = tensor.contiguous()  # some are in channels_last
                _together(dist.broadcast, message, 0)
                tensor.copy_(message)

    def check_same(self, modules: Sequence[nn.Module], step: int) -> None:
        """Raises RuntimeError if the modules' parameters or buffers differ between processes."""
        if self.count == 1:
            return
        totals = [tensor.double().sum() for tensor in _states(modules)]
        mine = torch.stack(totals)
        least, most = mine.clone(), mine.clone()
        _together(dist.all_reduce, least, dist.ReduceOp.MIN)
        _together(dist.all_reduce, most, dist.ReduceOp.MAX)
        if not torch.equal(least, most):
            raise RuntimeError(f"step {step}: the processes of this run have drifted apart")


def _together(collective: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """What all processes take part in. Raises UserError where one of them is gone, as after SIGKILL, or too late."""
    try:
        collective(*arguments, **options)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UserError(
            "another process of this run has ended or cannot be reached, so this one ends too; start them again with "
            f"--resume ({one_line(error)[:200]})"
        ) from error


def _states(modules: Sequence[nn.Module]) -> list[Tensor]:
    return [tensor.detach() for module in modules for tensor in (*module.parameters(), *module.buffers())]


@contextmanager
def process_group(device: torch.device, patience: timedelta = _PATIENCE) -> Iterator[Ranks]:
    """The processes that torchrun started (NCCL on GPUs, gloo on CPUs), or this one alone; `device` is this one's.

    A process that waits for another longer than `patience` fails.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    if "RANK" not in os.environ or "MASTER_ADDR" not in os.environ:
        raise UserError("WORLD_SIZE is set but RANK or MASTER_ADDR is not: start several processes with torchrun")
    started = not dist.is_initialized()
    if started:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # Its functions have today's group as a default argument. torch's optimizers import it: were that after the
        # group begins, the group would outlive `destroy_process_group`, and gloo's threads the interpreter (an abort).
        importlib.import_module("torch.distributed.nn.functional")
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
        except (RuntimeError, ValueError) as error:  # of the network; of RANK and the like
            place = f"{os.environ['MASTER_ADDR']}:{os.environ.get('MASTER_PORT', '?')}"
            raise UserError(
                f"cannot meet the other processes, {count} in all, at {place}: {one_line(error)[:200]}"
            ) from error
    try:
        here = Ranks(dist.get_rank(), dist.get_world_size(), started)
        yield here
        here.wait()  # or one that is done would take away what another still uses
    finally:
        if started and dist.is_initialized():
            dist.destroy_process_group()
