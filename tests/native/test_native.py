"""The native kernels under sanitizers: the program stress.cpp, built and run."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(platform.system() != "Linux", reason="sanitizers are tried on Linux")
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_sanitizers_find_nothing(sanitizer: str, tmp_path: Path) -> None:
    if not (shutil.which("cmake") and shutil.which("ninja")):
        pytest.skip("cmake and ninja are needed: pip install cmake ninja")
    switches = ["-DSDFGAN_STRESS=ON", "-DSDFGAN_CUDA=OFF", f"-DSDFGAN_SANITIZE={sanitizer}"]
    run("cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(tmp_path), "-DCMAKE_BUILD_TYPE=Release", *switches)
    run("cmake", "--build", str(tmp_path), "--parallel", str(os.cpu_count() or 1))
    assert "base: clean" in run(str(tmp_path / "sdfgan_stress"))


def run(*command: str) -> str:
    """The output; an AssertionError with all of it where the command fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
