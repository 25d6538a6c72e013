"""Pictures to learn from."""

from __future__ import annotations

import pytest
from torch import Tensor

from sdfgan.data.shapes import render_shapes


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return render_shapes(128, 32).images
