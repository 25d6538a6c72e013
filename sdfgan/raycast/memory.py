"""Graphs in pieces: a function of many samples whose gradient takes no more memory than that of a few.

The function is evaluated without a graph. When the gradient of its outputs has arrived, it is evaluated again with one,
piece by piece, and each piece's graph is gone before the next one's is made: the same gradient, in bounded memory.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Function = Callable[[Any], tuple[Tensor, ...]]
Memory = Literal["auto", "bounded", "unbounded"]

_SHARE_OF_FREE = 0.5
_PASSES = 2.0  # what a backward pass holds at its peak, in units of what the forward pass keeps for it
_PROBE = 256  # samples


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in a tensor, a sequence, a dictionary or a dataclass of such."""
    if isinstance(value, Tensor):
        return [value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for part in value for tensor in tensors_in(part)] if isinstance(value, (list, tuple)) else []


def differentiable_inputs(outputs: Sequence[Tensor], given: Sequence[Tensor]) -> list[Tensor]:
    """What the graph of `outputs` starts from: those of `given` that require grad, and all leaves not behind them."""
    found = [tensor for tensor in given if tensor.requires_grad]
    known = {tensor.grad_fn for tensor in found if tensor.grad_fn is not None}
    seen = set(known)
    waiting = [output.grad_fn for output in outputs if output.grad_fn is not None]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)  # of a node that accumulates a leaf's gradient
        if variable is not None and all(variable is not tensor for tensor in found):
            found.append(variable)
        waiting += [parent for parent, _ in node.next_functions if parent is not None]
    return found


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def in_pieces(
    function: Function,
    samples: Any,
    boundaries: Tensor,
    given: Sequence[Tensor],
    memory: Memory = "auto",
    budget: int | None = None,
) -> tuple[Tensor, ...]:
    """`function(samples)`, whose graph takes at most about `budget` bytes at a time.

    Args:
        function: gives tensors, rows of which depend on the same samples only, in their order. It must be
            deterministic. Differentiable in whatever it uses.
        samples: can be sliced.
        boundaries: [K] int64 ascending, from 0 to the number of samples: where they may be cut.
        given: tensors that the function uses and that are not leaves, where the pieces' graphs are to end.
        memory: "unbounded": one graph; "bounded": in pieces; "auto": in pieces if one graph would exceed the budget.
        budget: bytes; None: half of what is free.
    """
    if memory not in ("auto", "bounded", "unbounded"):
        raise ValueError(f"memory must be 'auto', 'bounded' or 'unbounded', got {memory!r}")
    if budget is not None and budget <= 0:
        raise ValueError(f"budget must be a positive number of bytes, got {budget}")
    total = int(boundaries[-1])
    if memory == "unbounded" or not torch.is_grad_enabled() or (memory == "auto" and total <= _PROBE):
        return function(samples)
    middle = boundaries[torch.searchsorted(boundaries, min(_PROBE, total))]
    kept, probed = _bytes_kept(function, samples[: int(middle)])
    if budget is None:
        device = probed[0].device
        budget = int(_SHARE_OF_FREE * free_memory(device))
    most = int(budget / (_PASSES * max(kept, 1)) * int(middle)) if total else 1
    if memory == "auto" and total <= most:
        return function(samples)
    inputs = differentiable_inputs(probed, given)
    del probed
    if not inputs:
        return function(samples)
    cuts = _cuts(boundaries, max(most, 1))
    outputs = _InPieces.apply(function, samples, cuts, *inputs)
    return outputs


def _bytes_kept(function: Function, samples: Any) -> tuple[int, tuple[Tensor, ...]]:
    """What the graph of `function(samples)` keeps for its backward pass, and what the function gave."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = function(samples)
    return sum(storages.values()), outputs


def _cuts(boundaries: Tensor, most: int) -> list[int]:
    """As few cuts as possible with at most `most` samples between two, where the boundaries allow it."""
    ends, cuts = boundaries.tolist(), [0]
    for end, following in zip(ends, [*ends[1:], None], strict=True):
        if (following is None or following - cuts[-1] > most) and end > cuts[-1]:
            cuts.append(end)
    return cuts


class _InPieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Function, samples: Any, cuts: list[int], *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.function, ctx.samples, ctx.cuts = function, samples, cuts
        ctx.save_for_backward(*inputs)
        pieces = [function(samples[begin:end]) for begin, end in pairwise(cuts)]
        ctx.rows = [[len(output) for output in piece] for piece in pieces]
        return tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        sums: list[Tensor | None] = [None] * len(inputs)
        starts = [0] * len(gradients)
        for begin, end, rows in zip(ctx.cuts[:-1], ctx.cuts[1:], ctx.rows, strict=True):
            with torch.enable_grad():
                outputs = ctx.function(ctx.samples[begin:end])
            own = [gradient[start : start + n] for gradient, start, n in zip(gradients, starts, rows, strict=True)]
            starts = [start + n for start, n in zip(starts, rows, strict=True)]
            with_graph = [(output, g) for output, g in zip(outputs, own, strict=True) if output.requires_grad]
            # What lies behind the leaves and the given tensors is shared by the pieces, and so retained.
            parts = torch.autograd.grad(
                [output for output, _ in with_graph], inputs, [g for _, g in with_graph],
                retain_graph=True, allow_unused=True,
            )  # fmt: skip
            del outputs, with_graph
            for i, part in enumerate(parts):
                if part is not None:
                    sums[i] = part if sums[i] is None else sums[i] + part
        return (None, None, None, *sums)
