"""Signed distances to a mesh: the native kernel, libigl, trimesh and plain torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import trimesh

from measure import Comparison
from sdfgan import ops
from sdfgan.ops import reference
from sdfgan.sdf import GroundTruth, normalise, sample

if TYPE_CHECKING:
    from cases import Options


def mesh_distance(options: Options) -> Iterator[Comparison]:
    """Signed distances to a mesh of 102,400 faces: 5 million near it; what is slow is measured on a share of them."""
    sections = (32, 16) if options.quick else (320, 160)
    made = trimesh.creation.torus(0.7, 0.25, major_sections=sections[0], minor_sections=sections[1])
    vertices, faces = torch.from_numpy(made.vertices).float(), torch.from_numpy(made.faces).int()
    tree = ops.mesh_tree(vertices, faces).to(options.device)
    count = 10_000 if options.quick else 5_000_000
    generator = torch.Generator().manual_seed(0)
    on = vertices[torch.randint(len(vertices), (count,), generator=generator)]
    points = (on + 0.02 * torch.randn(count, 3, generator=generator)).to(options.device)
    variants: dict[str, Callable[[], Any]] = {"sdfgan": lambda: ops.mesh_distance(tree, points)}
    # The share of the points that a peer gets.
    shares = {"torch, every face": 100, "trimesh": 2000, "libigl": count // 10}
    some = {name: points[:: count // share][:share] for name, share in shares.items()}
    variants["torch, every face"] = lambda: reference.mesh_distance(tree, some["torch, every face"])
    try:
        import rtree  # noqa: F401, which trimesh asks
    except ImportError:
        print("rtree is not installed (pip install rtree): trimesh is left out")
    else:
        variants["trimesh"] = lambda: made.nearest.signed_distance(some["trimesh"].cpu().numpy())
    few = some["torch, every face"].contiguous()
    exact = reference.mesh_distance(tree, few.double()).distance
    error = (ops.mesh_distance(tree, few).distance - exact).abs().max().item()
    try:
        import igl
    except ImportError:
        print("libigl is not installed (pip install libigl): left out")
    else:
        arrays = vertices.double().numpy(), faces.numpy().astype("int64")

        def by_libigl() -> None:
            queries = some["libigl"].cpu().double().numpy()
            igl.point_mesh_squared_distance(queries, *arrays)
            igl.fast_winding_number(*arrays, queries)

        variants["libigl"] = by_libigl
    config = {"faces": len(faces), "points": count, "where": "near the surface"}
    scale = {name: count / len(some[name]) for name in variants if name in some}
    peers = tuple(name for name in variants if name != "sdfgan")
    facts = {"sdfgan": {"largest_error": error}}
    yield Comparison("mesh_distance", config, variants, peers, facts, scale)
    if "libigl" in variants:  # which is given the points
        truth = GroundTruth(normalise(made)[0], device=options.device)
        drawn = {"sdfgan": lambda: sample(truth, count), "libigl": variants["libigl"]}
        config = {**config, "where": "drawn as train-sdf does"}
        yield Comparison("signed_samples", config, drawn, ("libigl",), scale={"libigl": scale["libigl"]})
