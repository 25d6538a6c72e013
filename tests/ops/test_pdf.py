"""sdfgan.ops.sample_pdf: against the reference, and that samples follow the density."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdfgan.ops import reference, sample_pdf

OP = torch.ops.sdfgan.sample_pdf.default


def random_density(rays, bins, dtype=torch.float32, device="cpu"):
    edges = torch.rand(rays, bins + 1, dtype=dtype, device=device).cumsum(-1)
    weights = torch.rand(rays, bins, dtype=dtype, device=device)
    return edges, weights * (torch.rand_like(weights) > 0.3)  # some bins are empty, some rays too


@settings(max_examples=40, deadline=None)
@given(
    rays=st.integers(0, 9),
    bins=st.integers(1, 20),
    samples=st.integers(0, 20),
    mode=st.sampled_from(["deterministic", "stratified", "u per ray", "shared u"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_matches_reference(device, assert_close, rays, bins, samples, mode, dtype):
    edges, weights = random_density(rays, bins, dtype, device)
    options = {"stratified": mode == "stratified"}
    if "u" in mode.split():
        shape = (samples,) if mode == "shared u" else (rays, samples)
        options["u"] = torch.rand(shape, dtype=dtype, device=device)
    seeded = [torch.Generator(device).manual_seed(1) for _ in range(2)]
    actual = sample_pdf(edges, weights, samples, generator=seeded[0], **options)
    assert actual.shape == (rays, samples)
    assert_close(actual, reference.sample_pdf(edges, weights, samples, generator=seeded[1], **options))
    assert (actual.diff(dim=-1) >= 0).all()
    assert ((actual >= edges[:, :1]) & (actual <= edges[:, -1:])).all()


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(device, half):
    edges, weights = (tensor.to(half) for tensor in random_density(6, 9, device=device))
    u = torch.rand(6, 5, device=device)
    for numbers in (u.to(half), u):
        expected = sample_pdf(edges.float(), weights.float(), 5, u=numbers.float())
        actual = sample_pdf(edges, weights, 5, u=numbers)
        assert actual.dtype == half and torch.equal(actual, expected.to(half))
    assert sample_pdf(edges.float(), weights, 5).dtype == torch.float32


def test_histogram_follows_the_density(device):
    """The share of samples in each half bin is that of the density, to four standard deviations."""
    n = 200_000
    edges = torch.tensor([[0.0, 0.1, 1.0, 1.5, 4.0]], device=device)
    weights = torch.tensor([[3.0, 1.0, 0.0, 2.0]], device=device)
    u = torch.rand(n, device=device, generator=torch.Generator(device).manual_seed(3))
    samples = sample_pdf(edges, weights, n, u=u)[0]
    halves = torch.stack([edges[0, :-1], (edges[0, :-1] + edges[0, 1:]) / 2], -1).flatten()
    counts = torch.bincount(torch.searchsorted(halves, samples, right=True) - 1, minlength=8)
    share = (weights[0] / weights.sum() / 2).repeat_interleave(2)
    assert counts.sum() == n
    assert ((counts / n - share).abs() <= 4 * (share * (1 - share) / n).sqrt()).all()


def test_stratified_puts_one_sample_in_each_stratum(device):
    edges = torch.tensor([[0.0, 1.0]], device=device)
    samples = sample_pdf(edges.expand(50, 2).contiguous(), torch.ones(50, 1, device=device), 8, stratified=True)
    assert torch.equal((samples * 8).floor().long(), torch.arange(8, device=device).expand(50, 8))
    assert samples.unique().numel() > 350


def test_rays_without_weight_are_uniform(device, assert_close):
    edges = torch.tensor([[1.0, 1.1, 3.0]], device=device)
    bad = torch.tensor([[0.0, 0.0], [-1.0, torch.nan], [torch.inf, -torch.inf]], device=device)
    samples = sample_pdf(edges.expand(3, 3).contiguous(), bad, 4)
    assert_close(samples, torch.tensor([1.25, 1.75, 2.25, 2.75], device=device).expand(3, 4))


def test_unusable_weights_count_as_zero(device, assert_close):
    edges, weights = random_density(5, 6, device=device)
    weights[:, 2], weights[:, 4] = 1.0, 0.0
    expected = sample_pdf(edges, weights, 9)
    for bad in (-1.0, torch.nan, torch.inf):
        weights[:, 4] = bad
        assert_close(sample_pdf(edges, weights, 9), expected)


@pytest.mark.parametrize("size", [1e308, 1e160, 1e-160, 1e-307])
def test_only_the_ratio_of_weights_matters(device, assert_close, size):
    edges, weights = random_density(5, 40, torch.float64, device)
    weights[:, 3] = 1.0
    assert_close(sample_pdf(edges, weights * size, 16), sample_pdf(edges, weights, 16))


def test_ends_of_u_are_the_ends_of_the_weight(device):
    edges = torch.tensor([[0.0, 1.0, 2.0, 3.0]], device=device)
    weights = torch.tensor([[0.0, 1.0, 0.0]], device=device)
    u = torch.tensor([1.0, 0.0, 0.5, 2.0, -1.0], device=device)  # any order; outside is clamped
    assert sample_pdf(edges, weights, 5, u=u).tolist() == [[1.0, 1.0, 1.5, 2.0, 2.0]]


def test_generator_decides(device):
    edges, weights = random_density(4, 5, device=device)
    first, second, other = (
        sample_pdf(edges, weights, 7, stratified=True, generator=torch.Generator(device).manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_opcheck(device):
    edges, weights = random_density(4, 5, device=device)
    torch.library.opcheck(OP, (edges, weights, torch.rand(4, 6, device=device).sort(-1).values))
    torch.library.opcheck(OP, (edges, weights, torch.linspace(0, 1, 3, device=device)))


def test_compiles(device, assert_close):
    edges, weights = random_density(4, 5, device=device)
    compiled = torch.compile(lambda e, w: sample_pdf(e, w, 6) * 2, fullgraph=True, backend="aot_eager")
    assert_close(compiled(edges, weights), sample_pdf(edges, weights, 6) * 2)


def test_rejections():
    edges, weights = random_density(4, 8)
    with pytest.raises(ValueError, match=r"sample_pdf: weights must be \[R, S\] float32, got \[4, 2\] float64 on cpu"):
        sample_pdf(edges, weights[:, :2].double(), 3)
    with pytest.raises(ValueError, match=r"edges must be \[R, S\+1\] float32 or float64, got \[4, 9\] int64"):
        sample_pdf(edges.long(), weights, 3)
    with pytest.raises(ValueError, match=r"sample_pdf: edges must be \[R, S\+1\] with S >= 1, got \[4, 1\]"):
        sample_pdf(edges[:, :1].contiguous(), weights, 3)
    with pytest.raises(ValueError, match=r"edges must be .* contiguous, got .* with strides \[1, 4\]"):
        sample_pdf(edges.t().contiguous().t(), weights, 3)
    with pytest.raises(ValueError, match=r"sample_pdf: u must be \[R, 3\] or \[3\], got \[2\]"):
        sample_pdf(edges, weights, 3, u=torch.rand(2))
    with pytest.raises(ValueError, match="sample_pdf: stratified must be False when u is given, got True"):
        sample_pdf(edges, weights, 3, u=torch.rand(3), stratified=True)
    with pytest.raises(ValueError, match="sample_pdf: num_samples must be >= 0, got -1"):
        sample_pdf(edges, weights, -1)
    with pytest.raises(TypeError, match="sample_pdf: weights must be a Tensor, got ndarray"):
        sample_pdf(edges, weights.numpy(), 3)


def test_gradient_is_refused():
    edges, weights = random_density(4, 8)
    weights.requires_grad_()
    with pytest.raises(RuntimeError, match="sample_pdf: not differentiable, but weights requires grad"):
        sample_pdf(edges, weights, 3)
    with torch.no_grad():
        sample_pdf(edges, weights, 3)
