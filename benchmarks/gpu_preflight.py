"""What this machine is: versions, what is missing, the GPU, and how fast it copies and multiplies.

python benchmarks/gpu_preflight.py
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import statistics
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from timeit import repeat
from typing import Any

import torch

import sdfgan
from gpu_records import keep, parser

_PACKAGES = """numpy scipy scikit-image pillow safetensors tensorboard rich imageio imageio-ffmpeg tyro trimesh mrcfile
    libigl rtree matplotlib pytest pytest-xdist pytest-timeout hypothesis"""
_ROUNDS = 5


def main() -> None:
    """Print it all, and keep the rates."""
    arguments = parser(__doc__).parse_args()
    found = {name: _version(name) for name in _PACKAGES.split()}
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} CPUs, {sys.executable}")
    print(", ".join(f"{name} {number}" for name, number in found.items() if number))
    missing = [name for name, number in found.items() if not number]
    print(f"missing: {', '.join(missing) or 'nothing'}")
    print(f"tools: {', '.join(f'{name} {shutil.which(name)}' for name in ('nvcc', 'compute-sanitizer', 'ffmpeg'))}")
    print(f"sdfgan {sdfgan.build_info()}")
    numbers: dict[str, Any] = {"missing": " ".join(missing)}
    if arguments.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        print(f"{properties}; CUDA {torch.version.cuda}, Triton {'no' if not _has('triton') else 'yes'}")
        numbers |= {"sms": properties.multi_processor_count, "memory_gib": properties.total_memory / 2**30}
    numbers |= _rates(arguments.device)
    copies, products = numbers["copy_gb_s"], numbers["fp16_tflop_s"]
    print(f"copies {copies:.0f} GB/s (read and written), fp16 products {products:.1f} TFLOP/s")
    keep(arguments, "preflight", "rates", {}, **numbers)
    if arguments.device == "cuda" and not sdfgan.build_info()["cuda"]:
        sys.exit("sdfgan was built without CUDA")


def _rates(device: str) -> dict[str, float]:
    """Copies of a gibibyte and products of 8192^3; on a CPU of a mebibyte and 256^3."""
    elements, side = (2**28, 8192) if device == "cuda" else (2**18, 256)
    source, target = (torch.ones(elements, device=device) for _ in range(2))
    half = torch.ones(side, side, dtype=torch.float16, device=device)
    copy = _seconds(lambda: target.copy_(source), device)
    product = _seconds(lambda: half @ half, device)
    return {"copy_gb_s": 8 * elements / copy / 1e9, "fp16_tflop_s": 2 * side**3 / product / 1e12}


def _seconds(run: Callable[[], object], device: str) -> float:
    """Median; by the GPU's clock."""
    if device != "cuda":
        return statistics.median(repeat(run, number=1, repeat=_ROUNDS))
    run()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(_ROUNDS + 1)]
    events[0].record()
    for event in events[1:]:
        run()
        event.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in pairwise(events)) / 1e3


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


if __name__ == "__main__":
    main()
