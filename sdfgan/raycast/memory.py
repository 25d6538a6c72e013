"""Graphs in pieces: a function of many samples whose gradient takes no more memory than that of a few.

The function is evaluated without a graph. When the gradient of its outputs has arrived, it is evaluated again with one,
piece by piece, and each piece's graph is gone before the next one's is made: the same gradient, in bounded memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdfgan.checks import as_tensor, check_number
from sdfgan.fields.base import Field, FieldSample, map_tensors
from sdfgan.fields.function import as_field

Function = Callable[[Any, Any], tuple[Tensor, ...]]
Memory = Literal["auto", "bounded", "unbounded"]

_SHARE_OF_FREE = 0.5
_PASSES = 2.0  # what a backward pass holds at its peak, in units of what the forward pass keeps for it
_PROBE = 256  # samples
_kept_before: WeakKeyDictionary[Field, float] = WeakKeyDictionary()  # bytes of a sample's graph


def _leaves(outputs: Sequence[Tensor]) -> list[Tensor]:
    """The tensors that the graph of `outputs` starts from."""
    found: list[Tensor] = []
    seen = set()
    waiting = [output.grad_fn for output in outputs if output.grad_fn is not None]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):  # accumulates a leaf's gradient
            found.append(node.variable)
        waiting += [parent for parent, _ in node.next_functions if parent is not None]
    return found


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; of a CPU with those that the system would take from its caches."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    with suppress(OSError, StopIteration, ValueError), open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # where the system does not say


def in_pieces(
    function: Function,
    given: Any,
    samples: Any,
    boundaries: Callable[[], Tensor],
    memory: Memory = "auto",
    budget: int | None = None,
    owner: Field | None = None,
) -> tuple[Tensor, ...]:
    """`function(given, samples)`, whose graph takes at most about `budget` bytes at a time.

    Args:
        function: gives tensors, rows of which depend on the same samples only, in their order. It must be
            deterministic. Differentiable in whatever it uses.
        given: what the function depends on and was computed from other things: tensors, in sequences, dictionaries and
            dataclasses. The pieces' graphs end there.
        samples: can be sliced and have a length and a device.
        boundaries: gives [K] int64 ascending, from 0 to the number of samples: where they may be cut. It is called
            only if they must be cut, or measured.
        memory: "unbounded": one graph; "bounded": in pieces; "auto": in pieces if one graph would exceed the budget.
        budget: bytes; None: half of what is free.
        owner: whose memory it is: what a sample takes is measured once for each and remembered ("auto").
    """
    if memory not in ("auto", "bounded", "unbounded"):
        raise ValueError(f"memory must be 'auto', 'bounded' or 'unbounded', got {memory!r}")
    if budget is not None:
        check_number("budget", budget)
    if budget is not None and budget <= 0:
        raise ValueError(f"budget must be a positive number of bytes, got {budget}")
    total, device = len(samples), samples.device
    if memory == "unbounded" or not torch.is_grad_enabled() or total <= (_PROBE if memory == "auto" else 0):
        return function(given, samples)
    known = _kept_before.get(owner) if owner is not None else None
    if memory == "auto" and known is not None and total <= _most(budget, known, device):
        return function(given, samples)
    # Leaves instead of what was given, so that no graph reaches behind it.
    copies: list[Tensor] = []
    originals: list[Tensor] = []

    def copy(tensor: Tensor) -> Tensor:
        if not tensor.requires_grad:
            return tensor
        originals.append(tensor)
        copies.append(tensor.detach().requires_grad_())
        return copies[-1]

    own = map_tensors(copy, given)
    ends = boundaries()
    few = int(ends[torch.searchsorted(ends, min(_PROBE, total))])
    kept, probed = _bytes_kept(partial(function, own), samples[:few])
    if owner is not None:
        _kept_before[owner] = kept / few
    most = _most(budget, kept / few, device)
    if memory == "auto" and total <= most:
        return function(given, samples)
    others = [leaf for leaf in _leaves(probed) if all(leaf is not tensor for tensor in copies)]
    del probed
    pieces = _Pieces(partial(function, own), samples, _cuts(ends, max(most, 1)), [*copies, *others])
    return _InPieces.apply(pieces, *originals, *others)


def _most(budget: int | None, kept: float, device: torch.device) -> int:
    """How many samples fit into the budget if each keeps so many bytes for the backward pass."""
    if budget is None:
        budget = int(_SHARE_OF_FREE * free_memory(device))
    return int(budget / (_PASSES * max(kept, 1 / _PROBE)))


def _bytes_kept(function: Callable[[Any], tuple[Tensor, ...]], samples: Any) -> tuple[int, tuple[Tensor, ...]]:
    """What the graph of `function(samples)` keeps for its backward pass, and what the function gave."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        known = storages.get(storage.data_ptr(), 0)
        storages[storage.data_ptr()] = min(known + tensor.nbytes, storage.nbytes())  # of views, no more than is seen
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


def evaluate(
    field: Field,
    points: Tensor,
    condition: Any,
    image: Tensor | None = None,
    *,
    memory: Memory = "auto",
    budget: int | None = None,
) -> FieldSample:
    """`field.evaluate` at points [..., 3], with its graph in pieces; see `in_pieces`. For losses beside an image."""

    field, points = as_field(field), as_tensor("evaluate: points", points)
    shape = points.shape[:-1]
    if points.shape[-1:] != (3,):
        raise ValueError(f"evaluate: points must be [..., 3], got {list(points.shape)}")
    if image is not None and image.shape != shape:
        raise ValueError(f"evaluate: image must be {list(shape)}, as the points are, got {list(image.shape)}")
    points, image = points.reshape(-1, 3), None if image is None else image.reshape(-1)

    def function(given: Any, chosen: Tensor) -> tuple[Tensor, ...]:
        points, condition = given
        return field.evaluate(points[chosen], condition, None if image is None else image[chosen])

    indices = torch.arange(len(points), device=points.device)
    boundaries = partial(torch.arange, len(points) + 1, device=points.device)
    answer = in_pieces(function, (points, condition), indices, boundaries, memory, budget)
    return FieldSample(*(values.reshape(*shape, *values.shape[1:]) for values in answer))


@dataclass(frozen=True)
class _Pieces:
    function: Callable[[Any], tuple[Tensor, ...]]
    samples: Any
    cuts: list[int]
    inputs: list[Tensor]  # what the function's graph starts from

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for begin, end in pairwise(self.cuts):
            yield self.function(self.samples[begin:end])


class _InPieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pieces: _Pieces, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.pieces = pieces
        ctx.save_for_backward(*inputs)  # so that torch says when one has been written to in between
        outputs = list(pieces)
        ctx.rows = [[len(output) for output in piece] for piece in outputs]
        return tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pieces: _Pieces = ctx.pieces
        _ = ctx.saved_tensors
        sums: list[Tensor | None] = [None] * len(pieces.inputs)
        rows = zip(*ctx.rows, strict=True)
        parts_of_gradients = [gradient.split(own) for gradient, own in zip(gradients, rows, strict=True)]
        with torch.enable_grad():
            for outputs, *own in zip(pieces, *parts_of_gradients, strict=True):
                graph = [(output, g) for output, g in zip(outputs, own, strict=True) if output.requires_grad]
                # What a leaf goes through before the function uses it is shared by the pieces, and so retained.
                parts = torch.autograd.grad(
                    [output for output, _ in graph], pieces.inputs, [g for _, g in graph],
                    retain_graph=True, allow_unused=True,
                )  # fmt: skip
                del outputs, graph
                sums = [b if a is None else a if b is None else a + b for a, b in zip(sums, parts, strict=True)]
        return (None, *sums)
