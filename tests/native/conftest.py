"""The CUDA kernels on the CPU, built once for all tests that run them."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest

from emulation import build


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return build(Path(os.environ.get("SDFGAN_EMULATED", tmp_path_factory.mktemp("emulated"))))
