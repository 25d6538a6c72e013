"""Which levels a picture is traced at, and that every choice of them finds the same surface."""

from __future__ import annotations

import pytest

from networks import RandomNetwork, some_cameras
from sdfgan import ops
from sdfgan.cameras import DEFAULT_FOV
from sdfgan.ops import TraceLevel
from sdfgan.raycast.levels import march_levels


def levels(resolution: int, native: str | None) -> list[TraceLevel]:
    return march_levels(resolution, DEFAULT_FOV, threshold=1e-4, steps=300, native=native, lipschitz=1.3)


def sizes(resolution: int, native: str | None) -> list[int]:
    return [level.size for level in levels(resolution, native)]


def test_levels_of_each_kind_of_trace() -> None:
    assert sizes(128, "cpu") == [4, 8, 16, 32, 64, 128]
    assert sizes(128, None) == [8, 32, 128]
    for expected in ([3], [16], [32], [44], [32, 64], [48, 96], [32, 128], [32, 64, 256]):
        assert sizes(expected[-1], "cuda") == expected
    assert [level.steps for level in levels(128, "cuda")] == [8, 390]  # as many more as the bound is larger


def test_the_environment_sets_the_levels_of_native_traces(monkeypatch) -> None:
    before = sizes(64, None)
    for name, value in (("SDFGAN_COARSEST", "8"), ("SDFGAN_FACTOR", "4"), ("SDFGAN_CONE_STEPS", "5")):
        monkeypatch.setenv(name, value)
    for native in ("cpu", "cuda"):
        assert [(level.size, level.steps) for level in levels(64, native)] == [(8, 5), (16, 5), (64, 390)]
    assert sizes(64, None) == before
    for name, value in (("SDFGAN_COARSEST", "0"), ("SDFGAN_FACTOR", "3"), ("SDFGAN_CONE_STEPS", "2.5")):
        with monkeypatch.context() as patch, pytest.raises(ValueError, match=f"{name} must be .*, got '{value}'"):
            patch.setenv(name, value)
            levels(64, "cuda")


@pytest.mark.parametrize("native", ["cpu", "cuda", None])
@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_hits_are_those_of_rays_without_cones(native, resolution) -> None:
    network, cameras = RandomNetwork(3, 64, (3, 1, 1)).on_cpu(), some_cameras(3)
    found, expected = (
        ops.film_siren_trace(cameras, plan, network, DEFAULT_FOV)
        for plan in (levels(resolution, native), levels(resolution, native)[-1:])
    )
    hit, truth = (result[0] == int(ops.RayStatus.HIT) for result in (found, expected))
    assert truth.float().mean() > 0.1
    assert (hit & truth).sum() / (hit | truth).sum() > 0.999
    assert (found[1] - expected[1])[hit & truth].abs().quantile(0.99) < 1e-4
