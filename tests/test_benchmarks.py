"""The benchmarks: their baselines do what they are compared with, and the command runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import baselines
import cases
from measure import Comparison, measure
from sdfgan import cameras, fields, ops, raycast
from sdfgan.raycast.seed import seed_points

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def some_network() -> tuple[fields.FilmSirenSDF, torch.Tensor]:
    torch.manual_seed(0)
    network = fields.FilmSirenSDF(width=32, latent_size=8).requires_grad_(False)
    network.sdf_head.mul_(4)
    return network, torch.randn(3, 8)


@pytest.mark.parametrize("name", ["faithful", "gather", "seg", "bf16"])
def test_evaluators_give_the_values_of_the_field(name: str) -> None:
    field, latents = some_network()
    points, image = 2 * torch.rand(100, 3) - 1, torch.arange(100) // 40
    answer = baselines.evaluators(field, latents, (name,))[name]()(points, image)
    tolerance = 3e-2 if name == "bf16" else 1e-5
    torch.testing.assert_close(answer, field.sdf(points, field.condition(latents), image), atol=tolerance, rtol=0)


@pytest.mark.parametrize("scales", [(16, 4), (8, 2, 2)])
def test_the_seeds_march_is_the_seeds(scales: tuple[int, ...]) -> None:
    field, latents = some_network()
    axes = cameras.rotate_axes((torch.tensor([-0.5, 0.1, 0.7]), torch.tensor([0.0, 2, 4])))
    with torch.no_grad():
        plain = baselines.trace_seed(baselines.gather(field, latents), axes, scales)
    ours = raycast.multiscale(axes, scales, latents, field, algorithm="seed")
    found = ours.mask.masked_scatter(ours.mask, ours.hit)
    assert (found & plain.hit).sum() / (found | plain.hit).sum() > 0.999
    assert abs(ours.queries - plain.queries) <= 1e-3 * plain.queries
    depth = torch.zeros(found.shape).masked_scatter(ours.mask, ours.distances)
    assert (depth - plain.distance)[found & plain.hit].abs().quantile(0.99) < 1e-5
    points = seed_points(field, field.condition(latents), axes, scales, cameras.DEFAULT_FOV)
    assert torch.equal(points.mask, plain.shaded)
    assert (points.distances - plain.start[plain.shaded]).abs().quantile(0.99) < 1e-5


def test_the_captured_march_is_the_same() -> None:
    """But for products in float16. On a CPU nothing is recorded."""
    field, latents = some_network()
    axes = cameras.rotate_axes((torch.tensor([-0.5, 0.1, 0.7]), torch.tensor([0.0, 2, 4])))
    with torch.no_grad():
        plain = baselines.trace_seed(baselines.gather(field, latents), axes, (8, 2))
        captured = baselines.CapturedSeed(field, latents, axes, (8, 2))()
    assert (captured.hit != plain.hit).sum() <= 2
    both = captured.hit & plain.hit
    assert both.sum() > 50 and (captured.distance - plain.distance)[both].abs().median() < 1e-3


@pytest.mark.parametrize("per_point", [True, False])
def test_the_seeds_training_step_makes_the_seeds_picture(per_point: bool) -> None:
    field, latents = some_network()
    field.requires_grad_()
    axes = cameras.rotate_axes((torch.tensor([-0.5, 0.1, 0.7]), torch.tensor([0.0, 2, 4])))
    picture = raycast.render(sdf=field, axes=axes, latents=latents, resolution=64, edge="fuzz").rgba
    of_picture, eikonal = baselines.seed_losses(field, latents, axes, (16, 4), per_point)
    torch.testing.assert_close(of_picture, picture.square().mean(), rtol=1e-3, atol=0)
    eikonal.backward()
    assert all(weight.grad.abs().sum() > 0 for weight in field.weights[: field.trunk_layers + field.sdf_layers])


@pytest.mark.slow
def test_every_variant_of_a_step_runs() -> None:
    comparison = cases._step(*some_network(), cameras.rotate_axes((torch.zeros(2), torch.arange(2.0))))
    with torch.no_grad():
        assert {record["variant"] for record in measure(comparison, 1)} == set(comparison.variants)


def test_plain_operators_give_the_same() -> None:
    x, edges = torch.rand(7, 3), torch.rand(5, 9).cumsum(-1)
    weights = torch.rand(5, 8) + 0.1
    u = (torch.arange(6) + 0.5).expand(5, 6) / 6
    torch.testing.assert_close(
        baselines.positional_encoding(x, 4), ops.positional_encoding(x, 4, include_input=True), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        baselines.sample_pdf(edges, weights, u), ops.sample_pdf(edges, weights, 6), atol=1e-5, rtol=0
    )
    rays = weights, weights / 3, torch.rand(5, 8, 3), edges[:, 1:].contiguous()
    for plain, ours in zip(baselines.composite(*rays), ops.composite(*rays), strict=True):
        torch.testing.assert_close(plain, ours, atol=1e-5, rtol=0)


def test_records_say_what_they_depend_on() -> None:
    comparison = Comparison("case", {"size": 1}, {"slow": lambda: sum(range(20000)), "fast": lambda: None}, ("slow",))
    slow, fast = measure(comparison, 3)
    assert fast["times_faster_than"]["slow"] > 1 and slow["times_faster_than"] == {}
    assert {"device", "threads", "commit", "versions", "command", "median_s", "spread"} <= fast.keys()


def test_the_command_lists_and_refuses() -> None:
    listed = subprocess.run(
        [sys.executable, BENCHMARKS / "bench.py", "--list"], capture_output=True, text=True, check=True
    )
    assert all(name in listed.stdout for name in ("trace", "evaluate", "ops", "mesh", "step"))
    refused = subprocess.run([sys.executable, BENCHMARKS / "bench.py", "nope"], capture_output=True, text=True)
    assert refused.returncode == 2 and "CASE must be" in refused.stderr
