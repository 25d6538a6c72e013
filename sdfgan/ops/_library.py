"""What every operator shares: registration with torch, checks of arguments, and the call into `sdfgan._C`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from typing import Any, cast

import torch
from torch import Tensor

from .. import _C

LIBRARY = torch.library.Library("sdfgan", "DEF")
REAL = (torch.float32, torch.float64)
HALF = (torch.float16, torch.bfloat16)

_here = threading.local()


def register(
    schema: str,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    context: Callable[..., None] | None = None,
    vmap: Callable[..., Any] | None = None,
) -> Any:
    """Define `sdfgan::` + schema with one kernel for CPU and CUDA and a fake one; returns the callable op.

    `backward` is its formula for autograd, for which `context` keeps what it needs (`torch.library.register_autograd`).
    `vmap` is its rule for `torch.func.vmap`, if it knows a better one than a call for each.
    """
    name = schema.split("(", 1)[0]
    LIBRARY.define(schema)
    for key in ("CPU", "CUDA"):
        LIBRARY.impl(name, kernel, key)
    torch.library.register_fake(f"sdfgan::{name}", fake, lib=LIBRARY)
    if backward is not None:
        torch.library.register_autograd(f"sdfgan::{name}", backward, setup_context=context, lib=LIBRARY)
    op = getattr(torch.ops.sdfgan, name).default
    torch.library.register_vmap(f"sdfgan::{name}", vmap or _one_by_one(name, op), lib=LIBRARY)
    return op


def _one_by_one(name: str, op: Any) -> Callable[..., Any]:
    """The rule of `torch.func.vmap` for what has no axis to spare: a call for each."""

    def rule(info: Any, in_dims: tuple, *arguments: Any) -> tuple[Any, Any]:
        if op._schema.is_mutable:
            raise RuntimeError(f"{name}: changes its arguments, which torch.func.vmap does not allow: call it for each")

        def of(index: int, argument: Any, dim: Any) -> Any:
            if isinstance(argument, (list, tuple)) and isinstance(dim, (list, tuple)):
                return [of(index, part, one) for part, one in zip(argument, dim, strict=True)]
            return argument if dim is None else argument.select(dim, index).contiguous()

        if info.batch_size == 0:
            raise RuntimeError(f"{name}: torch.func.vmap over an empty batch: the shape of the result is not known")
        calls = [op(*map(of, [index] * len(arguments), arguments, in_dims)) for index in range(info.batch_size)]
        if isinstance(calls[0], Tensor):
            return torch.stack(calls), 0
        columns = list(zip(*calls, strict=True))
        if any(len({part.shape for part in column}) > 1 for column in columns):
            raise RuntimeError(f"{name}: the results under torch.func.vmap have different sizes: call it for each")
        return tuple(map(torch.stack, columns)), (0,) * len(columns)

    return rule


def named(op: Any, given: Sequence[Any]) -> dict[str, Any]:
    """The first arguments of an op by their names in its schema: what a kernel takes under the same names."""
    return dict(zip(_argument_names(op), given, strict=False))


@cache
def _argument_names(op: Any) -> list[str]:
    return [argument.name for argument in op._schema.arguments]


def native(like: Tensor) -> _C.Kernels:
    """The native kernels for the dtype of `like`, on its device, its current stream and torch's threads.

    >>> native(edges).sample_pdf(edges=edges, weights=weights, ...)  # parameters: csrc/kernels and _C.pyi
    """
    module, place = module_and_place(like)
    return cast("_C.Kernels", _launcher(module.f32 if like.dtype == torch.float32 else module.f64, place))


def workspace(like: Tensor, kernel: str, *sizes: Any) -> Tensor:
    """The memory that a kernel works in on CUDA; on a CPU, none."""
    module, (device, *_) = module_and_place(like)
    size = getattr(module, f"{kernel}_workspace")(device, *sizes) if device >= 0 else 0
    return like.new_empty(size, dtype=torch.uint8)


@contextmanager
def kernels_on(threads: int) -> Iterator[None]:
    """Within, kernels that this thread calls on a CPU run in so many threads, in however many torch's operations do.

    The number of threads never changes what a kernel gives; that of torch's operations may.
    """
    before = getattr(_here, "threads", None)
    _here.threads = threads
    try:
        yield
    finally:
        _here.threads = before


def kernel_threads() -> int:
    """How many threads kernels that this thread calls on a CPU run in: as many as torch's operations, unless set."""
    return getattr(_here, "threads", None) or torch.get_num_threads()


def module_and_place(like: Tensor) -> tuple[Any, tuple[int, int, int]]:
    """The native module, and what its kernels take first: device or -1, CUDA stream, threads."""
    if not like.is_cuda:
        return _C, (-1, 0, kernel_threads())
    if not _C.cuda:
        raise RuntimeError(f"tensors are on {like.device}, but sdfgan was built without CUDA")
    return _C, (like.device.index, torch.cuda.current_stream(like.device).cuda_stream, 0)


class _Launcher:
    def __init__(self, kernels: Any, place: tuple[int, int, int]) -> None:
        self._kernels, self._place = kernels, place

    def __getattr__(self, name: str) -> Callable[..., None]:
        launch = partial(getattr(self._kernels, name), self._place)
        setattr(self, name, launch)  # found at once from then on
        return launch


_launcher = lru_cache(maxsize=64)(_Launcher)  # as long as neither stream nor number of threads changes


class Checker:
    """Checks the tensors of one call. Sizes named alike ("R") are equal; all share the first one's device.

    >>> check = Checker("trace_step")
    >>> check("origins", origins, ("N", 3), REAL)
    >>> check("far", far, ("N",), (origins.dtype,))
    """

    def __init__(self, op: str) -> None:
        self.op = op
        self.sizes: dict[str, int] = {}
        self.device: torch.device | None = None

    def __call__(self, name: str, tensor: Tensor, shape: Sequence[str | int], dtypes: Sequence[torch.dtype]) -> None:
        """Raise ValueError unless `tensor` is contiguous, of this shape and device, of one of the dtypes."""
        self.device = self.device or tensor.device
        fits, sizes = tensor.dim() == len(shape), self.sizes
        for label, size in zip(shape, tensor.shape, strict=True) if fits else ():
            fits = fits and size == (sizes.setdefault(label, size) if isinstance(label, str) else label)
        if fits and tensor.dtype in dtypes and tensor.device == self.device and tensor.is_contiguous():
            return
        wanted = f"{_brackets(shape)} {' or '.join(map(_dtype_name, dtypes))}"
        got = f"{_brackets(tensor.shape)} {_dtype_name(tensor.dtype)} on {tensor.device}"
        if tensor.device != self.device:
            wanted += f" on {self.device}"
        elif not tensor.is_contiguous():
            wanted += " contiguous"
            got += f" with strides {_brackets(tensor.stride())}"
        bound = ", ".join(f"{label}={self.sizes[label]}" for label in shape if label in self.sizes)
        raise ValueError(f"{self.op}: {name} must be {wanted}, got {got}" + (f" ({bound})" if bound else ""))


def require_tensors(op: str, **arguments: Any) -> None:
    """Raise TypeError unless every argument is a tensor."""
    for name, value in arguments.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{op}: {name} must be a Tensor, got {type(value).__name__}")


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half types as float32; others as they are."""
    return tensor.float() if tensor.dtype in HALF else tensor


def refuse_gradient(op: str, how: str = "", /, **arguments: Tensor) -> None:
    """Raise RuntimeError when an argument would carry a gradient into an op that has none, or not called thus."""
    require_tensors(op, **arguments)
    if torch.is_grad_enabled():
        for name, tensor in arguments.items():
            if tensor.requires_grad:
                raise RuntimeError(
                    f"{op}: not differentiable{how}, but {name} requires grad; "
                    f"pass {name}.detach() or call it under torch.no_grad()"
                )


def _brackets(items: Sequence[Any]) -> str:
    return "[" + ", ".join(map(str, items)) + "]"


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
