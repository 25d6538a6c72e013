"""The native code that needs a build of its own: stress.cpp under sanitizers, CUDA for every architecture."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sdfgan import build_info

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(platform.system() != "Linux", reason="sanitizers are tried on Linux")
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_sanitizers_find_nothing(sanitizer: str, tmp_path: Path) -> None:
    if not (shutil.which("cmake") and shutil.which("ninja")):
        pytest.skip("cmake and ninja are needed: pip install cmake ninja")
    levels = build_info()["simd_compiled"]
    levels = levels[: levels.index(build_info()["simd"]) + 1]  # those of this CPU: compiling others takes minutes
    switches = ["-DSDFGAN_STRESS=ON", "-DSDFGAN_CUDA=OFF", f"-DSDFGAN_SANITIZE={sanitizer}"]
    switches += [f"-DSDFGAN_AVX512={'ON' if 'avx512' in levels else 'OFF'}"]
    run("cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(tmp_path), "-DCMAKE_BUILD_TYPE=Release", *switches)
    run("cmake", "--build", str(tmp_path), "--parallel", str(len(os.sched_getaffinity(0))))
    assert run(str(tmp_path / "sdfgan_stress"), *levels).splitlines() == [f"{level}: clean" for level in levels]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_every_architecture_is_compiled(tmp_path: Path) -> None:
    """Those that are built by default, as far as this nvcc knows them; `.ci/run` builds but two."""
    (default,) = re.findall(r'DEFAULT_CUDA_ARCHS = "(.*)"', (ROOT / "setup.py").read_text())
    known = run("nvcc", "--list-gpu-arch").split()
    codes = [f"arch=compute_{arch},code=sm_{arch}" for arch in default.split(";") if f"compute_{arch}" in known]
    source, switches = ROOT / "tests" / "native" / "device_code.cu", ["-std=c++17", f"-I{ROOT / 'csrc'}", "-c"]
    run("nvcc", *switches, *(f"-gencode={code}" for code in codes), str(source), "-o", str(tmp_path / "device_code.o"))
    assert codes


def run(*command: str) -> str:
    """The output; an AssertionError with all of it where the command fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
