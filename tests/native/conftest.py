"""The CUDA kernels on the CPU, built once for all tests that run them."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest

from emulation import build


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The first process of pytest-xdist that gets here builds with all cores; the others wait, and have it too."""
    import fcntl  # which Windows lacks, where these tests are skipped

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with open(shared / "emulated.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return build(Path(os.environ.get("SDFGAN_EMULATED", shared / "emulated")))
