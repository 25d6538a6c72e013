"""training.optim.GridAdam: torch's Adam but for what a batch has not reached."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sdfgan.fields.hash_grid import HashGrid
from sdfgan.training.checkpoint import pack_optimizer, unpack_optimizer
from sdfgan.training.optim import GridAdam
from sdfgan.training.steps import Steps, step_rows

RATE = 0.05


def make(reuse: bool = True) -> tuple[HashGrid, nn.Linear, GridAdam]:
    torch.manual_seed(0)
    grid, layer = HashGrid(levels=3, log2_size=10, finest=40), nn.Linear(12, 1)
    grid.spares = [] if reuse else None
    return grid, layer, GridAdam([grid.table, *layer.parameters()], RATE, grid.table, grid.spares)


def learn(grid: HashGrid, layer: nn.Linear, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        points = torch.rand(50, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        layer(grid(points)).square().mean().backward()
        optimizer.step()


def test_what_is_reached_moves_as_by_adam_and_nothing_else_does() -> None:
    """In the first step; in the others too where all is reached."""
    (grid, layer, optimizer), (other, plain, _) = make(), make(reuse=False)
    before = grid.table.detach().clone()
    adam = torch.optim.Adam([other.table, *plain.parameters()], RATE, (0.9, 0.99), 1e-15, fused=True)
    learn(grid, layer, optimizer, range(1))
    learn(other, plain, adam, range(1))
    reached = (grid.table != before).any(1)
    assert 0.05 < reached.float().mean() < 0.95
    torch.testing.assert_close(grid.table, other.table)
    assert grid.table.grad is None
    for step in range(3):
        for table, step_on in ((grid.table, optimizer), (other.table, adam)):
            step_on.zero_grad()
            table.grad = torch.randn(table.shape, generator=torch.Generator().manual_seed(step))
            step_on.step()
    torch.testing.assert_close(grid.table[reached], other.table[reached])
    torch.testing.assert_close(list(layer.parameters()), list(plain.parameters()))


def test_the_table_s_gradient_takes_no_new_memory() -> None:
    """It is that of a fresh one, to the bit, and leaves the spare zero."""
    (grid, layer, optimizer), (other, plain, one_by_one) = make(), make(reuse=False)
    learn(grid, layer, optimizer, range(1))
    assert grid.spares is not None and len(grid.spares) == 1 and not grid.spares[0].any()
    address = grid.spares[0].data_ptr()  # who holds the tensor itself makes autograd copy it
    learn(other, plain, one_by_one, range(1))
    for step in range(1, 5):
        learn(grid, layer, optimizer, range(step, step + 1))
        learn(other, plain, one_by_one, range(step, step + 1))
        assert [each.data_ptr() for each in grid.spares] == [address]
        assert torch.equal(grid.table, other.table)
    assert other.spares is None
    points = torch.rand(5, 3)
    grid(points).sum().backward(retain_graph=True)
    assert grid.table.grad is not None and grid.table.grad.data_ptr() == address
    with pytest.raises(RuntimeError, match="once_differentiable"):
        (found,) = torch.autograd.grad(grid(points).square().sum(), grid.table, create_graph=True)
        found.sum().backward()
    points.requires_grad_()
    (slope,) = torch.autograd.grad(grid(points).square().sum(), points, create_graph=True)
    slope.sum().backward()  # of any order where points need it


def test_a_spare_of_another_kind_is_left_alone() -> None:
    grid, _, _ = make()
    grid.double()
    grid.spares = [torch.zeros(grid.table.shape)]
    assert grid.table_gradient(torch.rand(4, 3).double(), torch.ones(4, 12).double()).dtype == torch.float64


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_is_left_out(bad: float) -> None:
    """Decided on the device: the next step is what it would be if the bad one had never been."""
    found = []
    for values in ((1.0, 1.0), (1.0, bad, 1.0)):
        grid, layer, optimizer = make()
        steps = Steps({"model": "--rate"}, None)
        for value in values:
            layer(grid(torch.rand(50, 3, generator=torch.Generator().manual_seed(0)))).sum().mul(value).backward()
            steps.take("model", optimizer, [grid.table, *layer.parameters()], 1.0)
        slots = [slot for slots in optimizer.state.values() for slot in slots.values()]
        found.append([grid.table.detach(), *layer.parameters(), *slots])
        assert grid.spares is not None and not grid.spares[0].any()
    assert all(map(torch.equal, *found))


def test_rows_of_stacked_tables() -> None:
    """One whose gradient is not finite stays as it is, and the other moves."""
    table = nn.Parameter(torch.zeros(2, 8, 4))
    optimizer = GridAdam([table], RATE, table)
    table.grad = torch.zeros(2, 8, 4)
    table.grad[0, 3], table.grad[1, 2] = torch.nan, 1.0
    step_rows(optimizer, [table], [False, True])
    assert not table[0].any() and (table[1, 2] != 0).all() and not table[1, 3:].any()


def test_a_checkpoint_of_adam_goes_on(tmp_path: Path) -> None:
    """Of before there was this optimiser; and one of this goes on to the bit."""
    grid, layer, _ = make()
    adam = torch.optim.Adam([grid.table, *layer.parameters()], RATE, (0.9, 0.99), 1e-15, fused=True)
    learn(grid, layer, adam, range(3))

    def resumed(saved: dict[str, Tensor], source: tuple[HashGrid, nn.Linear]) -> tuple[HashGrid, nn.Linear, GridAdam]:
        again, plain, optimizer = make()
        again.load_state_dict(source[0].state_dict())
        plain.load_state_dict(source[1].state_dict())
        unpack_optimizer(optimizer, {name: tensor.clone() for name, tensor in saved.items()}, "adam", tmp_path)
        return again, plain, optimizer

    first = resumed(pack_optimizer(adam, "adam"), (grid, layer))
    assert first[2].state[first[0].table]["step"] == 3
    learn(*first, range(3, 5))
    second = resumed(pack_optimizer(first[2], "adam"), first[:2])
    for each in (first, second):
        learn(*each, range(5, 8))
    assert torch.equal(first[0].table, second[0].table)


def test_closures_are_refused() -> None:
    with pytest.raises(ValueError, match="GridAdam: takes no closure"):
        make()[2].step(lambda: 0.0)
