"""Functions of tensors as CUDA graphs: recorded at their first call, replayed from then on.

A replay launches all of a function's kernels at once, so that the host's part of it, which for small networks is most
of the time, is paid once. A function may read tensors that it is not given, such as weights, if they are where they
were: it gives what they hold by then.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor

_WARM_UP = 3  # calls before a recording: libraries choose their algorithms, and take their memory, at the first ones


class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: Any


class Graphs:
    """The recordings of one device; functions of the same key, shapes and dtypes share one.

    What a call gives is overwritten by the next call of its key.
    """

    def __init__(self) -> None:
        self._recordings: dict[Hashable, _Recording] = {}
        self._settings: object = None

    def keep_while(self, settings: object) -> None:
        """Forget all recordings if these settings, on which the functions depend, differ from the previous ones."""
        if settings != self._settings:
            self._recordings.clear()
            self._settings = settings

    def __call__(self, key: Hashable, function: Callable[..., Any], *inputs: Tensor) -> Any:
        """`function(*inputs)`, which must not wait for the device nor depend on anything that changes but tensors."""
        whole = (key, *((tuple(x.shape), x.dtype, x.device) for x in inputs))
        recording = self._recordings.get(whole)
        if recording is None:
            recording = self._recordings[whole] = _record(function, [x.detach().clone() for x in inputs])
        for own, given in zip(recording.inputs, inputs, strict=True):
            own.copy_(given)
        recording.graph.replay()
        return recording.outputs

    def loss(self, key: Hashable, function: Callable[..., Any], images: Tensor, *inputs: Tensor) -> tuple[Tensor, Any]:
        """A loss and what goes with it, `function(images, *inputs)`; the loss is differentiable in `images` alone."""
        return _ReplayedLoss.apply(images, self, key, function, *inputs)


class _ReplayedLoss(torch.autograd.Function):
    """The recording holds the gradient too: forward replays it, backward gives it."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, graphs: Graphs, key: Hashable, function: Any, *inputs: Tensor) -> Any:
        def with_gradient(images: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor, Any]:
            with torch.enable_grad():
                leaf = images.detach().requires_grad_()
                loss, log = function(leaf, *inputs)
                (gradient,) = torch.autograd.grad(loss, leaf)
            return loss.detach(), gradient, log

        loss, gradient, log = graphs(key, with_gradient, images, *inputs)
        ctx.save_for_backward(gradient.clone())
        ctx.others = 3 + len(inputs)
        return loss.clone(), log

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (grad * gradient, *(None,) * ctx.others)


def _record(function: Callable[..., Any], inputs: list[Tensor]) -> _Recording:
    here = torch.cuda.current_stream(inputs[0].device)
    aside = torch.cuda.Stream(inputs[0].device)
    aside.wait_stream(here)
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UP):
            function(*inputs)
    here.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=aside):  # the same: autograd remembers the streams of weights
        outputs = function(*inputs)
    return _Recording(graph, inputs, outputs)
