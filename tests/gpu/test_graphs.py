"""Training steps whose discriminator is replayed from CUDA graphs: the same numbers as without."""

from __future__ import annotations

import pytest
import torch

from sdfgan.data.shapes import render_shapes
from sdfgan.gan import GanConfig
from sdfgan.gan.data import TrainingData
from sdfgan.gan.job import GanJob
from sdfgan.training.graphs import Graphs

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def test_a_function_is_recorded_once_and_reads_the_weights_of_now():
    weight, calls = torch.full((3,), 2.0, device="cuda"), []

    def double(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return weight * x

    graphs, x = Graphs(), torch.arange(3.0, device="cuda")
    assert graphs("double", double, x).tolist() == [0, 2, 4]
    recorded = len(calls)
    weight.fill_(3)
    assert graphs("double", double, x + 1).tolist() == [3, 6, 9] and len(calls) == recorded
    assert graphs("double", double, torch.ones(2, 3, device="cuda")).sum().item() == 18  # another shape
    assert len(calls) > recorded


def test_a_recorded_loss_has_the_gradient_by_its_images():
    graphs = Graphs()
    for seed in (0, 1):
        torch.manual_seed(seed)
        images, shift = (torch.randn(4, 3, device="cuda") for _ in range(2))
        leaf = images.clone().requires_grad_()

        def function(x: torch.Tensor, shift: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            return (x + shift).square().sum(), {"mean": x.mean()}

        loss, log = graphs.loss("loss", function, 2 * leaf, shift)
        (gradient,) = torch.autograd.grad(3 * loss, leaf)
        torch.testing.assert_close(gradient, 12 * (2 * images + shift))
        torch.testing.assert_close(log["mean"], 2 * images.mean())


@pytest.mark.parametrize("settings", [
    {},
    {"precision": "fp32", "gan_loss": "wgan-gp", "chunk_size": 4},
    {"pose_weight": 0.5, "latent_weight": 0.1, "top_k_interval": 2, "channels": 3},
    {"gan_loss": "sphere", "discriminator": "residual"},
])  # fmt: skip
def test_training_with_graphs_is_training_without(settings, monkeypatch):
    """Up to rounding: convolutions may choose other algorithms. Compared before steps make more of it."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    reals = render_shapes(16, 32).images
    base = {"device": "cuda", "resolution": 32, "batch_size": 8, "width": 64, "r1_interval": 2, "precision": "fp32"}
    logs = []
    for graphs in (True, False):
        config = GanConfig(**base | settings | {"cuda_graphs": graphs}).resolved()
        job = GanJob(config, TrainingData.of(reals))
        logs.append([job.step() for _ in range(3)])
        job.close()
    for number, (with_graphs, without) in enumerate(zip(*logs, strict=True)):
        assert with_graphs.keys() == without.keys()
        tolerance = 1e-2 * 4**number
        wrong = {
            name: (with_graphs[name], value)
            for name, value in without.items()
            if with_graphs[name] != pytest.approx(value, rel=tolerance, abs=tolerance / 4)
        }
        assert not wrong, f"step {number}"
