"""Fields of one shape: every network, its gradient, and the renderers that take it."""

from __future__ import annotations

import pytest
import torch

from sdfgan.fields.coordinate import (
    ACTIVATIONS,
    INITS,
    CoordinateSDF,
    FixedLatent,
    Perceptron,
    PositionalEncoding,
)
from sdfgan.fields.film_siren import FilmSirenSDF
from sdfgan.fields.hash_grid import HashGrid
from sdfgan.sdf.config import DAM_WIDTHS


def field(kind: str) -> CoordinateSDF:
    torch.manual_seed(0)
    if kind == "film-siren":
        return CoordinateSDF(FixedLatent(FilmSirenSDF(width=16, latent_size=4, mapping_width=8)))
    if kind == "hash":
        grid = HashGrid(levels=3, log2_size=10, coarsest=2, finest=8, smooth=True)
        with torch.no_grad():
            grid.table.uniform_(-1, 1)
        return CoordinateSDF(Perceptron(grid.width, (16,), "softplus"), grid)
    if kind == "positional":
        return CoordinateSDF(Perceptron(27, (16, 16), "softplus"), PositionalEncoding(4))
    return CoordinateSDF(Perceptron(3, (16, 16), kind))


KINDS = [*ACTIVATIONS, "positional", "hash", "film-siren"]


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_that_of_the_value(kind: str) -> None:
    shape = field(kind).double()
    points = torch.rand(20, 3, dtype=torch.float64) - 0.5
    condition = shape.condition(None)
    with torch.no_grad():
        value, gradient = shape.sdf_and_gradient(points, condition)
        step = 1e-6
        for axis in range(3):
            offset = step * torch.eye(3, dtype=torch.float64)[axis]
            ahead, behind = (shape.sdf(points + sign * offset, condition) for sign in (1, -1))
            assert torch.allclose((ahead - behind) / (2 * step), gradient[:, axis], atol=1e-5)
        assert torch.allclose(shape(points), value)


@pytest.mark.parametrize("kind", ["relu", "hash", "film-siren"])
def test_eikonal_loss_reaches_every_parameter(kind: str) -> None:
    shape = field(kind)
    value, gradient = shape.sdf_and_gradient(torch.rand(64, 3) - 0.5, shape.condition(None))
    ((gradient.norm(dim=1) - 1).square().mean() + value.square().mean()).backward()
    texture = ("texture", "weights.4", "biases.4")  # of a FiLM-SIREN
    for name, parameter in shape.named_parameters():
        if not any(part in name for part in texture):
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_only_a_plain_film_siren_is_fused() -> None:
    shape = field("film-siren")
    assert shape.network(shape.condition(None)) is not None
    assert field("relu").network(None) is None and field("relu").condition(None) is None
    with pytest.raises(ValueError, match="one shape has no latents"):
        field("relu").condition(torch.zeros(1, 4))


def test_slope_is_measured() -> None:
    shape = field("relu")
    with torch.no_grad():
        for layer in shape.net.layers:
            layer.weight.mul_(3)
    points = torch.rand(2000, 3) - 0.5
    _, gradient = shape.sdf_and_gradient(points)
    shape.measure_slope(points)
    longer = (gradient.norm(dim=1) > shape.lipschitz).float().mean()
    assert shape.lipschitz > 1 and longer <= 0.0011


def test_initial_weights() -> None:
    torch.manual_seed(0)
    wide = Perceptron(3, DAM_WIDTHS, "relu", "he_uniform")
    assert [layer.out_features for layer in wide.layers] == [*DAM_WIDTHS, 1]
    for layer in wide.layers:
        bound = (6 / layer.in_features) ** 0.5
        assert 0.9 * bound < layer.weight.abs().max() <= bound and (layer.bias == 0).all()
    spread = {init: Perceptron(3, (100, 100), "relu", init).layers[1].weight.std().item() for init in INITS}
    assert len(set(spread.values())) == len(INITS)
    siren = Perceptron(3, (64, 64), "siren")
    assert siren.layers[1].weight.abs().max() <= (6 / 64) ** 0.5 / 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, (), "relu"), "widths must be at least one positive number"),
        ((3, (4,), "gelu"), "activation must be one of relu, leaky-relu, softplus, siren, got 'gelu'"),
        ((3, (4,), "relu", "zeros"), "init must be one of he_uniform, .* got 'zeros'"),
    ],
)
def test_rejects(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Perceptron(*arguments)


def test_hash_grid_rejects() -> None:
    with pytest.raises(ValueError, match="finest at least coarsest, got 2 levels of 8 to 4 cells"):
        HashGrid(levels=2, coarsest=8, finest=4)
