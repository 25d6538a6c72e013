"""What several tests of scenes learn from."""

from __future__ import annotations

from pathlib import Path

import pytest

import posed


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a scene of posed images: a ball."""
    return posed.blender_scene(tmp_path_factory.mktemp("scenes") / "ball")
