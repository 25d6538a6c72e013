"""Devices and tolerances of all tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import sdfgan

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))

# The one table of tolerances, (relative, absolute), for values of the order of one.
TOLERANCES = {
    torch.float16: (2e-3, 2e-3),
    torch.bfloat16: (1e-2, 1e-2),
    torch.float32: (1e-5, 2e-6),
    torch.float64: (1e-10, 1e-11),
}

DEVICES = ["cpu"]
if torch.cuda.is_available() and sdfgan.build_info()["cuda"]:
    DEVICES.append(pytest.param("cuda", marks=pytest.mark.gpu))


@pytest.fixture(params=DEVICES, scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device that this machine has and the build supports; a test that takes it runs on each."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Each test leaves as many threads as it found: more than the cores, all others would wait for one another."""
    before = torch.get_num_threads()
    yield
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert after == before, f"torch.set_num_threads({after}) was left behind"


@pytest.fixture(scope="session")
def assert_close() -> Callable[[Tensor, Tensor], None]:
    """Equality of two tensors up to the tolerance of their dtype; NaN equals NaN."""

    def check(actual: Tensor, expected: Tensor) -> None:
        rtol, atol = TOLERANCES.get(expected.dtype, (0, 0))
        torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, equal_nan=True)

    return check
