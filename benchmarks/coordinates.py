"""What fields of one shape are made of, against plain torch: hash grids with their gradients, perceptrons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import torch

from measure import Comparison
from sdfgan import ops
from sdfgan.fields.coordinate import Perceptron
from sdfgan.fields.hash_grid import HashGrid
from sdfgan.fields.small_mlp import SmallMlp
from sdfgan.ops import reference

_POINTS = 2**15


def comparisons(quick: bool, device: str) -> Iterator[Comparison]:
    """The hash grid of the medium preset, forward and back; networks of dfr and of the presets."""
    from sdfgan.sdf.config import DAM_WIDTHS  # with tyro, which `bench.py --list` must do without

    points = torch.rand(_POINTS // (8 if quick else 1), 3, generator=torch.Generator().manual_seed(0)).to(device)
    grid = HashGrid(levels=4, log2_size=19, coarsest=8, finest=64).to(device)
    table = grid.table.detach().requires_grad_()
    settings = (grid.cells, grid.table_size)

    def back(encode: Callable[..., torch.Tensor]) -> None:
        with torch.enable_grad():
            torch.autograd.grad(encode(points, table, *settings).sum(), table)

    config = {"op": "hash_encoding", "points": len(points), "levels": 4, "features": 4}
    variants = {
        "sdfgan": lambda: ops.hash_encoding(points, grid.table.detach(), *settings),
        "torch": lambda: reference.hash_encoding(points, grid.table.detach(), *settings),
    }
    yield Comparison("coordinates", config, variants, ("torch",))
    tables = {"sdfgan": lambda: back(ops.hash_encoding), "torch": lambda: back(reference.hash_encoding)}
    yield Comparison("coordinates", config | {"gradient": "table"}, tables, ("torch",))
    if device != "cpu":
        return
    for inputs, widths in ((3, DAM_WIDTHS), (3, (256,) * 8), (16, (32,))):
        fused, plain = Perceptron(inputs, widths), Perceptron(inputs, widths)
        plain.load_state_dict(fused.state_dict())
        plain._fused = None
        x = torch.rand(len(points), inputs)
        work = 2 * len(x) * sum(a * b for a, b in pairwise(fused.sizes))
        facts = {name: {"work_flop": work} for name in ("fused", "torch")}
        shape = {"op": "perceptron", "points": len(x), "layers": len(widths), "widest": max(widths)}
        runs = {"fused": lambda net=fused, x=x: net(x), "torch": lambda net=plain, x=x: net(x)}
        yield Comparison("coordinates", shape, runs, ("torch",), facts)
    # Inputs, width, layers, outputs: those of train-nerf's hash grids, and train-sdf's largest.
    for sizes in ((16, 32, 1, 16), (31, 32, 2, 3), (3, 256, 8, 1)):
        net = SmallMlp(*sizes)
        x = torch.rand(len(points) // 4, sizes[0], requires_grad=True)
        shape = {"op": "perceptron", "points": len(x), "layers": sizes[2], "widest": sizes[1], "gradient": "all"}

        def both(forward: Callable[..., torch.Tensor], net: SmallMlp = net, x: torch.Tensor = x) -> None:
            with torch.enable_grad():
                torch.autograd.grad(forward(net, x).sum(), [x, *net.parameters()])

        runs = {"fused": partial(both, SmallMlp.forward), "torch": partial(both, torch.nn.Sequential.forward)}
        yield Comparison("coordinates", shape, runs, ("torch",))
