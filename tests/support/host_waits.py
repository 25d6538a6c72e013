"""Counting, on a CPU, the operations that would make the host wait for a GPU."""

from __future__ import annotations

import traceback
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_WAITS = {
    "nonzero": 1,  # the size of its result
    "masked_select": 1,
    "_local_scalar_dense": 1,  # item(), int(), float(), bool()
    "equal": 1,
    "bincount": 2,  # the smallest and the largest
    "_unique2": 1,
    "unique_dim": 1,
    "unique_consecutive": 1,
    "repeat_interleave": 1,  # by a tensor, without output_size
}
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
_ON_A_CPU_ALONE = ("sphere_trace.py", "see")  # a count that is read where it is on a CPU, and sent ahead where not
_COPIES = ("tolist", "cpu", "numpy")
_UPLOADS = ("tensor", "as_tensor", "new_tensor")  # of numbers in Python


class HostWaits(TorchDispatchMode):
    """Counts operations, those of backward passes too, and the waits among them.

    `waits` counts where, as "file:line name", the host would wait for what is on the device, and `uploads` where it
    would copy numbers there, which waits as well. Copies of tensors between devices do not show on a CPU: give it
    what works on the device alone. Threads that are started within are not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.waits: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()
        self._functions = _Functions(self)

    def __enter__(self) -> HostWaits:
        self._functions.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._functions.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        name = func._schema.name.split("::")[1]
        waits = _WAITS.get(name, 0)
        if name == "repeat_interleave" and (kwargs or {}).get("output_size") is not None:
            waits = 0
        if name in _INDEXING:
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            fills = name != "index" and len(args[1]) == 1 and args[2].numel() == 1 and args[2].ndim == 0
            waits = 0 if fills else len(masks)
        if waits and not _on_a_cpu_alone():
            self.waits[f"{_where()} {name}"] += waits
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    """Sees what leaves no trace on a CPU."""

    def __init__(self, counts: HostWaits) -> None:
        super().__init__()
        self._counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _COPIES:
            self._counts.waits[f"{_where()} {name}"] += 1
        if name == "__setitem__" and not isinstance(args[2], Tensor) and _gathers(args[1]):
            self._counts.uploads[f"{_where()} {name}"] += 1  # `index_fill_` would not copy the number
        data = args[1 if name == "new_tensor" else 0] if name in _UPLOADS and args else None
        if data is not None and not isinstance(data, Tensor):
            self._counts.uploads[f"{_where()} {name}"] += 1
        return func(*args, **(kwargs or {}))


def _gathers(index: Any) -> bool:
    """Whether what is written to are places in tensors of integers; a single mask is filled."""
    tensors = [i for i in (index if isinstance(index, tuple) else (index,)) if isinstance(i, Tensor) and i.ndim]
    return len(tensors) > 1 or any(i.dtype != torch.bool for i in tensors)


def _frames() -> list[traceback.FrameSummary]:
    """The lines of the package that are at work."""
    return [frame for frame in traceback.extract_stack() if "/sdfgan/" in frame.filename]


def _on_a_cpu_alone() -> bool:
    frames, (file, function) = _frames(), _ON_A_CPU_ALONE
    return bool(frames) and frames[-1].filename.endswith(file) and frames[-1].name == function


def _where() -> str:
    """The innermost of them; in a backward pass, that which asked for it."""
    frames = _frames()
    return f"{frames[-1].filename.rpartition('/sdfgan/')[2]}:{frames[-1].lineno}" if frames else "backward"
