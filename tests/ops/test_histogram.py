"""sdfgan.ops.interlevel_loss and distortion_loss: against the reference, their derivatives, and cases known by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdfgan.ops import distortion_loss, interlevel_loss, reference


def histogram(rays, bins, dtype=torch.float64, device="cpu"):
    """Edges on a coarse lattice, so that some coincide and some bins are empty; weights."""
    edges = torch.randint(0, 12, (rays, bins + 1), device=device).sort(1).values.to(dtype) / 8
    return edges, torch.rand(rays, bins, dtype=dtype, device=device) / max(bins, 1)


@settings(max_examples=40, deadline=None)
@given(
    rays=st.integers(0, 4),
    bins=st.integers(0, 12),
    others=st.integers(0, 9),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_match_reference(device, assert_close, rays, bins, others, dtype):
    edges, weights = histogram(rays, bins, dtype, device)
    proposal = histogram(rays, others, dtype, device)
    assert_close(interlevel_loss(edges, weights, *proposal), reference.interlevel_loss(edges, weights, *proposal))
    assert_close(distortion_loss(edges, weights), reference.distortion_loss(edges, weights))


def test_a_proposal_that_covers_costs_nothing(device):
    """All weight in one bin: whatever proposal bins overlap it must hold at least as much, and others do not count."""
    edges = torch.tensor([[0.0, 0.4, 0.6, 1.0]], device=device)
    weights = torch.tensor([[0.0, 1.0, 0.0]], device=device)
    proposal_edges = torch.tensor([[0.0, 0.5, 1.0]], device=device)
    for proposal, expected in (([0.3, 0.7], 0.0), ([1.0, 0.0], 0.0), ([0.2, 0.3], 0.25), ([0.0, 0.0], 1.0)):
        loss = interlevel_loss(edges, weights, proposal_edges, torch.tensor([proposal], device=device))
        assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_distortion_of_two_spikes(device):
    edges = torch.tensor([[0.0, 0.1, 0.9, 1.0]], device=device)
    weights = torch.tensor([[0.5, 0.0, 0.5]], device=device)
    loss = distortion_loss(edges, weights).item()
    assert loss == pytest.approx(2 * 0.25 * 0.9 + (0.25 + 0.25) * 0.1 / 3)


def test_gradients(device):
    edges, weights = histogram(3, 6, device=device)
    proposal_edges, proposal = histogram(3, 4, device=device)
    weights, proposal = weights.requires_grad_(), (proposal / 3).requires_grad_()

    def interlevel(w):
        return interlevel_loss(edges, weights, proposal_edges, w)

    def distortion(w):
        return distortion_loss(edges, w)

    for function, argument in ((interlevel, proposal), (distortion, weights)):
        assert torch.autograd.gradcheck(function, argument)
        assert torch.autograd.gradgradcheck(function, argument)
    assert not interlevel(proposal.detach()).requires_grad  # the final weights get no gradient


def test_opcheck_and_compile(device, assert_close):
    edges, weights = histogram(3, 6, torch.float32, device)
    proposal_edges, proposal = histogram(3, 4, torch.float32, device)
    proposal.requires_grad_()
    torch.library.opcheck(torch.ops.sdfgan.overlap_sums.default, (edges, proposal_edges, proposal))
    torch.library.opcheck(torch.ops.sdfgan.distortion.default, (proposal_edges, proposal))

    def loss(w):
        return (interlevel_loss(edges, weights, proposal_edges, w) + distortion_loss(proposal_edges, w)).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert_close(*(torch.autograd.grad(f(proposal), proposal)[0] for f in (compiled, loss)))


def test_rejections():
    edges, weights = histogram(3, 6)
    with pytest.raises(ValueError, match=r"interlevel_loss: proposal_weights must be \[R, P\] float64, got \[3, 5\]"):
        interlevel_loss(edges, weights, edges, weights[:, :5].contiguous())
    with pytest.raises(ValueError, match=r"distortion_loss: weights must be \[R, S\] float64, got \[3, 6\] float32"):
        distortion_loss(edges, weights.float())
    with pytest.raises(RuntimeError, match="distortion_loss: not differentiable, but edges requires grad"):
        distortion_loss(edges.requires_grad_(), weights)
