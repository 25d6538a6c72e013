"""How often the host waits for the device in a step of learning a scene, and in looking at it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import posed
from host_waits import HostWaits
from sdfgan.data.scenes import load_scene
from sdfgan.nerf import NerfConfig
from sdfgan.nerf.job import NerfJob
from sdfgan.nerf.report import SceneRenderer

# Two rounds of a march at most, the samples that are kept, and the gradients' norm. Two more are on the host whatever
# the device: seeds, and the log, which has come by then. Once it was 1,700 operations and about fifty waits.
STEP = 4 + 2, 220
UPDATING_STEP = 6 + 2, 280  # every 16th: the cells that are seen, and a seed


@pytest.fixture
def trainer(tmp_path: Path) -> NerfJob:
    """As on a GPU: one chunk; smaller, which changes no count."""
    scene = load_scene(posed.blender_scene(tmp_path / "ball"))
    sizes = {"hash_table": 12, "hash_finest": 32, "grid_resolution": 16, "march_steps": 400, "width": 16}
    config = NerfConfig(device="cpu", rays=256, chunk_size=256, samples=2**14, **sizes).resolved()
    trainer = NerfJob(config, scene)
    trainer.threads.close()  # threads of their own would not be counted
    trainer.step()
    return trainer


def test_a_step(trainer: NerfJob) -> None:
    for most_waits, most_operations in (STEP, UPDATING_STEP):
        with HostWaits() as seen:
            trainer.step()
        print(f"{seen.operations} operations, waits: {seen.waits}, uploads: {seen.uploads}")
        assert 5 <= seen.waits.total() <= most_waits, seen.waits
        assert 100 < seen.operations <= most_operations
        assert not seen.uploads
        trainer.steps_done = 16


@torch.no_grad()
def test_a_look(trainer: NerfJob) -> None:
    """A wait for each round, for the samples that are kept, and for the rays that a lens leaves."""
    views = trainer.views
    observer = SceneRenderer(trainer.model, trainer.background, rays=10**6)
    with HostWaits() as seen:
        observer.look(views.cameras, 0)
    print(f"{seen.operations} operations, waits: {seen.waits}, uploads: {seen.uploads}")
    assert 4 <= seen.waits.total() <= 7 and seen.operations <= 140 and not seen.uploads
