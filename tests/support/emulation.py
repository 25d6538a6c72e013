"""The CUDA kernels on the CPU: how tests build them with tests/native/emulated, and run operators on them."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from torch import Tensor

from sdfgan import ops

ROOT = Path(__file__).parents[2]
needs_emulation = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.system() != "Linux", reason="emulation is tried on Linux"),
    pytest.mark.skipif(
        not (shutil.which("cmake") and shutil.which("ninja")), reason="needs pip install cmake ninja pybind11"
    ),
]
HOPPER, AMPERE, TURING = 0, 1, 2  # the emulated devices: the second has less shared memory, the third no tensor cores


def build(folder: Path) -> ModuleType:
    """The native module with emulated CUDA."""
    pybind11 = run(sys.executable, "-m", "pybind11", "--cmakedir").strip()
    switches = ["-DSDFGAN_CUDA=EMULATED", "-DCMAKE_BUILD_TYPE=Release", f"-Dpybind11_DIR={pybind11}"]
    switches += ["-DSDFGAN_AVX512=OFF"]  # kernels for CPUs are not what is tried
    run("cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(folder), f"-DPython_EXECUTABLE={sys.executable}", *switches)
    run("cmake", "--build", str(folder), "--parallel", str(len(os.sched_getaffinity(0))))
    (library,) = folder.glob("_C.*so")
    spec = importlib.util.spec_from_file_location("_C", library)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*command: str) -> str:
    """The output; an AssertionError with all of it where the command fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def on_gpu(emulated: ModuleType, device: int = HOPPER) -> Iterator[None]:
    """Here operators on CPU tensors run the CUDA kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops._library, "module_and_place", lambda like: (emulated, (device, 0, 0)))
        yield


def on_both(emulated: ModuleType, run: Callable[[], list[Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of what `run` gives with the CUDA kernels and with those of the CPU."""
    with on_gpu(emulated):
        actual = run()
    return zip(actual, run(), strict=True)
