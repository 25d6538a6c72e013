"""sdfgan.ops.layer_edges: against the reference, and areas of a disc whose rim is thinner than a pixel."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from random_layers import random_layers
from sdfgan.cameras import orbit_camera
from sdfgan.ops import layer_edges, reference

OP = torch.ops.sdfgan.layer_edges.default


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(1, 3),
    resolution=st.integers(1, 9),
    share=st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    all_hits=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_matches_reference(device, assert_close, images, resolution, share, all_hits, seed):
    given_ = random_layers(images, resolution, share=share, device=device, seed=seed)
    actual, expected = (op(**given_, all_hits=all_hits) for op in (layer_edges, reference.layer_edges))
    assert torch.equal(actual.source, expected.source)
    assert_close(actual.nearest, expected.nearest)
    assert_close(actual.area, expected.area)


def test_hits_take_edges_of_misses(device):
    given_ = random_layers(2, 20, device=device)
    some, every = (layer_edges(**given_, all_hits=all_hits) for all_hits in (False, True))
    index = torch.arange(len(some.source), device=device)
    moved, misses = some.source != index, ~given_["hit"]
    assert 20 < moved.sum() < (every.source != index).sum()
    assert not (moved & (misses | given_["opaque"])).any() and misses[some.source[moved]].all()
    assert (some.area[given_["opaque"]] == 1).all() and ((some.area >= 0) & (some.area <= 1)).all()
    assert not (every.source != index)[misses].any()


def test_a_plate_seen_from_the_edge(device):
    """Half a pixel thick and centred on a row: the misses beside it know that a quarter pixel is beyond an edge."""
    side, pixel_size, thickness = 5, 0.1, 0.025
    pixel = torch.arange(side**2, device=device)
    height = (2 - pixel // side) * pixel_size  # of the pixel's centre above the plate's
    hit = height.abs() < thickness
    distance = torch.where(hit, -thickness, height.abs() - thickness).double()
    normal = torch.zeros(side**2, 3, dtype=torch.float64, device=device)
    normal[:, 1] = torch.where(hit, 0.0, height.sign())  # inside, the sdf is that of the faces towards the camera
    normal[:, 2] = torch.where(hit, 1.0, 0.0)
    camera = orbit_camera(torch.eye(3, dtype=torch.float64, device=device)[None])
    ones = torch.ones_like(distance)
    edges = layer_edges(
        pixel, hit, ~ones.bool(), ones.bool(), 2 * ones, distance, normal, pixel_size * ones, camera, side,
        all_hits=False,
    )  # fmt: skip
    assert (edges.source[hit] != pixel[hit]).all()
    torch.testing.assert_close(edges.area[hit], torch.full_like(edges.area[hit], 0.75))
    assert not edges.area[~hit].any()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads(device, threads):
    given_ = random_layers(2, 80, device=device, dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = layer_edges(**given_, all_hits=True)
        torch.set_num_threads(1)
        assert all(map(torch.equal, found, layer_edges(**given_, all_hits=True)))
    finally:
        torch.set_num_threads(before)


def test_opcheck(device):
    for share in (0.5, 0.0):
        given_ = (*random_layers(share=share, device=device).values(), False)
        torch.library.opcheck(OP, given_)


def test_compiles(device, assert_close):
    given_ = random_layers(device=device)
    compiled = torch.compile(lambda given_: layer_edges(**given_, all_hits=False), fullgraph=True)
    for a, e in zip(compiled(given_), layer_edges(**given_, all_hits=False), strict=True):
        assert_close(a, e)


def test_rejections(device):
    given_ = random_layers(device=device)
    count = len(given_["pixel"])
    for name, wrong, words in (
        ("hit", given_["hit"].int(), r"layer_edges: hit must be \[N\] bool"),
        ("nearest", given_["nearest"].float(), r"layer_edges: nearest must be \[N\] float64"),
        ("normal", given_["normal"][:, :2].contiguous(), r"layer_edges: normal must be \[N, 3\] float64"),
        ("camera", given_["camera"][:, :, :3].contiguous(), r"layer_edges: camera must be \[B, 3, 4\] float64"),
        ("size", given_["size"][1:].clone(), rf"layer_edges: size must be .*N={count}"),
        ("resolution", 0, "layer_edges: resolution must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=words):
            layer_edges(**{**given_, name: wrong}, all_hits=False)
    with pytest.raises(RuntimeError, match="layer_edges: not differentiable, but nearest requires grad"):
        layer_edges(**{**given_, "nearest": given_["nearest"].clone().requires_grad_()}, all_hits=False)
    with pytest.raises(TypeError, match="layer_edges: t must be a Tensor, got float"):
        layer_edges(**{**given_, "t": 1.0}, all_hits=False)
