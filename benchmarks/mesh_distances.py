"""Signed distances to a mesh, and rays that meet one: the native kernels, other libraries and plain torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from measure import Comparison, lazily
from mesh_peers import DISTANCES
from options import Options
from sdfgan import ops
from sdfgan.cameras import ray_grid, rotate_axes
from sdfgan.ops import reference
from torus import torus


def mesh_distance(options: Options) -> Iterator[Comparison]:
    """Signed distances to a mesh of 102,400 faces: 5 million near it; what is slow is measured on a share of them."""
    vertices, faces = torus(*((32, 16) if options.quick else (320, 160)), 0.7, 0.25)
    tree = ops.mesh_tree(vertices, faces).to(options.device)
    count = 10_000 if options.quick else 5_000_000
    generator = torch.Generator().manual_seed(0)
    on = vertices[torch.randint(len(vertices), (count,), generator=generator)]
    points = (on + 0.02 * torch.randn(count, 3, generator=generator)).to(options.device)
    # The share of the points that a peer gets.
    shares = {
        "torch, every face": 100,
        "libigl": count // 10,
        "open3d": count // 10,
        "pysdf": count // 10,
        "trimesh": 2000,
    }
    some = {name: points[:: count // share][:share].contiguous() for name, share in shares.items()}
    few = some["torch, every face"]

    def examine(name: str, _: Any) -> dict[str, Any]:
        if name != "sdfgan":
            return {}
        exact = reference.mesh_distance(tree, few.double()).distance
        return {"largest_error": (ops.mesh_distance(tree, few).distance - exact).abs().max().item()}

    variants: dict[str, Callable[[], Any]] = {
        "sdfgan": lambda: ops.mesh_distance(tree, points),
        "torch, every face": lambda: reference.mesh_distance(tree, few),
        **{peer: lazily(partial(make, vertices, faces, some[peer])) for peer, make in DISTANCES.items()},
    }
    config = {"faces": len(faces), "points": count, "where": "near the surface"}
    scale = {name: count / len(queries) for name, queries in some.items()}
    yield Comparison("mesh_distance", config, variants, tuple(some), examine=examine, scale=scale)
    if find_spec("trimesh") is None:
        print("signed_samples: left out, for trimesh is not installed")
        return
    drawn = {  # libigl is given the points
        "sdfgan": lazily(partial(_sampler, vertices, faces, count, options.device)),
        "libigl": variants["libigl"],
    }
    config = {**config, "where": "drawn as train-sdf does"}
    yield Comparison("signed_samples", config, drawn, ("libigl",), scale={"libigl": scale["libigl"]})


def mesh_raycast(options: Options) -> Iterator[Comparison]:
    """Where the rays of a camera first meet a mesh of 102,400 faces, image by image; the slow ones get a share."""
    vertices, faces = torus(*((32, 16) if options.quick else (320, 160)), 0.7, 0.25)
    tree, side = ops.mesh_tree(vertices, faces).to(options.device), 128 if options.quick else 1024
    axes = rotate_axes((torch.tensor([0.4]), torch.tensor([0.9])))
    origins, directions = (part.reshape(-1, 3).contiguous().to(options.device) for part in ray_grid(axes, side))
    step = {"torch, every face": side * side // 200, "trimesh": side * side // 100}
    few = [rays[:: step["torch, every face"]].contiguous() for rays in (origins, directions)]
    some = [rays[:: step["trimesh"]].contiguous() for rays in (origins, directions)]

    def examine(name: str, _: Any) -> dict[str, Any]:
        if name != "sdfgan":
            return {}
        found, exact = ops.mesh_raycast(tree, *few), reference.mesh_raycast(tree, *(rays.double() for rays in few))
        both = found.distance.isfinite() & exact.distance.isfinite()
        largest = (found.distance - exact.distance)[both].abs().max().item()
        return {"largest_error": largest, "met": found.distance.isfinite().float().mean().item()}

    variants: dict[str, Callable[[], Any]] = {
        "sdfgan": lambda: ops.mesh_raycast(tree, origins, directions),
        "embree, one thread": lazily(partial(_by_embree, vertices, faces, origins, directions)),
        "trimesh": lazily(partial(_rays_by_trimesh, vertices, faces, *some)),
        "torch, every face": lambda: reference.mesh_raycast(tree, *few),
    }
    config = {"faces": len(faces), "rays": side * side}
    scale = {"torch, every face": side * side / len(few[0]), "trimesh": side * side / len(some[0])}
    yield Comparison("mesh_raycast", config, variants, tuple(variants)[1:], examine=examine, scale=scale)


def _by_embree(vertices: Tensor, faces: Tensor, origins: Tensor, directions: Tensor) -> Callable[[], Any]:
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    TriangleMesh(scene, vertices.numpy(), faces.numpy())
    rays = origins.cpu().numpy(), directions.cpu().numpy()
    return lambda: scene.run(*rays, query="INTERSECT", output=True)


def _rays_by_trimesh(vertices: Tensor, faces: Tensor, origins: Tensor, directions: Tensor) -> Callable[[], Any]:
    import trimesh
    from trimesh.ray.ray_triangle import RayMeshIntersector  # which asks rtree

    caster = RayMeshIntersector(trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False))
    return lambda: caster.intersects_first(origins.cpu().numpy(), directions.cpu().numpy())


def _sampler(vertices: Tensor, faces: Tensor, count: int, device: str) -> Callable[[], Any]:
    import trimesh

    from sdfgan.sdf import GroundTruth, normalise, sample

    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    truth = GroundTruth(normalise(mesh)[0], device=device)
    return lambda: sample(truth, count)
