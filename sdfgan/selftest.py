"""Each kernel once, on small inputs, against its definition in plain torch, and whole images against formulas.

What `sdfgan doctor` runs. `CASES` are functions of a library, which is `sdfgan.ops` or `sdfgan.ops.reference`, and of a
device; benchmarks/gpu_smoke.py compares them between devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdfgan import cameras, fields, ops, raycast
from sdfgan.ops import reference

Case = Callable[[Any, str], Sequence[Tensor]]
CASES: dict[str, Case] = {}

ROUNDED = 3e-5  # of float32 sums in another order
_EVALUATED = 1e-5  # of a network, relative to its double
_HITS, _DEPTH = 2e-2, 1e-3  # share of rays whose hit may differ, at silhouettes; and their depth
_COVERAGE = 5e-3  # of the area of a disc


class Result(NamedTuple):
    """How far a kernel was off, and how far it may be; what it raised, if it did."""

    name: str
    error: float
    limit: float
    raised: str = ""

    @property
    def passed(self) -> bool:
        """Whether it is right."""
        return not self.raised and self.error <= self.limit


def run(device: str = "cpu") -> Iterator[Result]:
    """Every check on a device, one after the other. The random state of torch is left as it was."""
    checks: dict[str, tuple[Callable[[], float], float]] = {
        name: (lambda case=case: _against_reference(case, device), ROUNDED)  # type: ignore[misc]
        for name, case in CASES.items()
    }
    checks |= {
        "film_siren, film_siren_sample": (lambda: _network(device), _EVALUATED),
        "march_count, march_samples, march_reached": (lambda: _grid_march(device), ROUNDED),
        "film_siren_trace": (lambda: _trace(device), _HITS),
        "start_level, trace_step": (lambda: _sphere(device), _DEPTH),
        "layer_step, layer_edges": (lambda: _coverage(device), _COVERAGE),
    }
    if torch.device(device).type == "cpu":
        checks["perceptron"] = (_perceptron, ROUNDED)
    for name, (check, limit) in checks.items():
        with torch.random.fork_rng(devices=[]):
            try:
                yield Result(name, check(), limit)
            except Exception as error:
                yield Result(name, math.inf, limit, f"{type(error).__name__}: {' '.join(str(error).split())}")


def difference(actual: Tensor, expected: Tensor) -> float:
    """Of real numbers the largest difference, as a share of the largest value above one; of others, how many differ."""
    actual = actual.detach().cpu()
    if not expected.is_floating_point():
        return (actual != expected).double().mean().item()
    actual, expected = actual.double(), expected.detach().double()
    if not torch.equal(actual.isnan(), expected.isnan()):
        return math.inf
    actual, expected = (torch.nan_to_num(x, nan=0.0, posinf=1e30, neginf=-1e30) for x in (actual, expected))
    if expected.numel() == 0:
        return 0.0
    return ((actual - expected).abs().max() / expected.abs().max().clamp(min=1)).item()


def with_gradients(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Outputs, and the gradients of a sum of theirs under uneven weights."""
    total = sum((x * torch.linspace(0.5, 1.5, x.numel(), device=x.device).view(x.shape)).sum() for x in outputs)
    assert isinstance(total, Tensor)
    return [*outputs, *torch.autograd.grad(total, list(inputs))]


def histogram(device: str, rays: int = 300, bins: int = 40) -> tuple[Tensor, Tensor]:
    """Edges [R, S+1] and weights [R, S]."""
    edges = (torch.rand(rays, bins + 1) + 0.01).cumsum(-1)
    return edges.to(device), torch.rand(rays, bins).to(device)


def some_cameras(count: int) -> Tensor:
    """[count, 3, 4], around the origin."""
    angles = torch.linspace(0, 1, count)
    return cameras.orbit_camera(cameras.rotate_axes((2 * angles - 0.8, 5 * angles))).contiguous()


def _largest(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    return max(difference(a, e) for a, e in zip(actual, expected, strict=True))


def _against_reference(case: Case, device: str) -> float:
    torch.manual_seed(0)
    expected = case(reference, "cpu")
    torch.manual_seed(0)
    return _largest(case(ops, device), expected)


# ------------------------------------------------------------------------------ kernels that have a definition to call


def _case(name: str) -> Callable[[Case], None]:
    return lambda case: CASES.update({name: case})


@_case("positional_encoding")
def _(library: Any, device: str) -> Sequence[Tensor]:
    x = (2 * torch.rand(1000, 3) - 1).to(device).requires_grad_()
    return with_gradients([library.positional_encoding(x, 8, include_input=True)], [x])


@_case("sample_pdf")
def _(library: Any, device: str) -> Sequence[Tensor]:
    edges, weights = histogram(device)
    u = torch.rand(300, 64).to(device)
    return [library.sample_pdf(edges, weights, 64), library.sample_pdf(edges, weights, 64, u=u)]


for _channels in (1, 3, 4, 6, 7):

    @_case(f"composite, {_channels} channels")
    def _(library: Any, device: str, channels: int = _channels) -> Sequence[Tensor]:
        edges, densities = histogram(device)
        deltas = edges.diff()
        colors = torch.rand(*densities.shape, channels).to(device)
        inputs = [x.contiguous().requires_grad_() for x in (densities, deltas, colors, edges[:, :-1])]
        return with_gradients(library.composite(*inputs), inputs)

    @_case(f"composite, packed, {_channels} channels")
    def _(library: Any, device: str, channels: int = _channels) -> Sequence[Tensor]:
        offsets = torch.cat([torch.zeros(1), torch.randint(0, 60, (200,)).cumsum(0)]).long()
        count = int(offsets[-1])
        given = torch.rand(count), torch.rand(count) / 30, torch.rand(count, channels), torch.rand(count)
        inputs = [x.to(device).requires_grad_() for x in given]
        return with_gradients(library.composite(*inputs, offsets=offsets.to(device)), inputs)


@_case("generate_rays")
def _(library: Any, device: str) -> Sequence[Tensor]:
    rays: Sequence[Tensor] = library.generate_rays(
        some_cameras(3).to(device), torch.arange(3 * 40 * 50).to(device), 40, 50, 0.7
    )
    return rays


for _dims, _features in ((2, 2), (3, 1), (3, 2), (3, 4), (3, 8)):

    @_case(f"hash_encoding, {_dims}D, {_features} features")
    def _(library: Any, device: str, dims: int = _dims, features: int = _features) -> Sequence[Tensor]:
        cells, size = [8, 16, 40, 100], 2**12
        table = torch.rand(ops.hash_table_begins(dims, cells, size)[-1], features).to(device).requires_grad_()
        points = torch.rand(1000, dims).to(device).requires_grad_()
        first = with_gradients([library.hash_encoding(points, table, cells, size, smooth=True)], [points, table])
        again = library.hash_encoding(points, table, cells, size, smooth=True).square().sum()
        (slope,) = torch.autograd.grad(again, points, create_graph=True)
        return [*first, *torch.autograd.grad(slope.square().sum(), [points, table])]  # twice


@_case("lazy_adam")
def _(library: Any, device: str) -> Sequence[Tensor]:
    values, *means = torch.randn(3000).to(device), *torch.zeros(2, 3000).to(device)
    for step in (1, 2, 3):
        gradient = (torch.randn(3000) * (torch.rand(3000) < 0.3)).to(device)
        count = torch.full((), float(step)).to(device)
        library.lazy_adam(values, gradient, *means, count, rate=0.1, skip=(count == 2).float())
    return [values, *means, gradient]


@_case("mesh_distance")
def _(library: Any, device: str) -> Sequence[Tensor]:
    found = library.mesh_distance(_torus().to(device), 2 * torch.rand(300, 3).to(device) - 1)
    return [found.distance]  # of several faces that are as near, any may be named


@_case("mesh_raycast")
def _(library: Any, device: str) -> Sequence[Tensor]:
    targets = 2 * torch.rand(300, 3) - 1
    origins = 3 * torch.nn.functional.normalize(torch.randn(300, 3))
    found = library.mesh_raycast(_torus().to(device), origins.to(device), (targets - origins).to(device))
    return [found.distance.nan_to_num(posinf=9.0), found.barycentric.sum(1)]


@_case("sample_pixels, valid_pixels")
def _(library: Any, device: str) -> Sequence[Tensor]:
    sizes = torch.tensor([[20, 30], [25, 15], [10, 40]])
    intrinsics = torch.tensor([[40.0, 41, 15, 10], [30, 30, 7, 12], [50, 50, 20, 5]])
    lens = torch.tensor([[0.1, -0.02, 1e-3, -1e-3, 0.01, 0.02, 0, 0.01, 0], [0.0] * 9, [-0.3, 0.1, *[0.0] * 6, 0.01]])
    fisheye, mask = torch.tensor([False, True, False]), torch.arange(int(sizes.prod(1).sum())) % 7 != 3
    views = ops.pixel_views(*(x.to(device) for x in (some_cameras(3), intrinsics, sizes, lens, fisheye, mask)))
    images = torch.randint(0, 256, (len(mask), 3), dtype=torch.uint8)
    seen = library.sample_pixels(views, torch.arange(len(images)).to(device), images.to(device))
    assert seen.colors is not None
    return [seen.origins, seen.directions, seen.radii, seen.colors, ops.valid_pixels(views)]


@_case("frustum_gaussians")
def _(library: Any, device: str) -> Sequence[Tensor]:
    edges, _ = histogram(device)
    directions = torch.nn.functional.normalize(torch.randn(300, 3), dim=-1).to(device)
    rays = torch.rand(300, 3).to(device), directions, edges, torch.full((300,), 1e-3).to(device)
    return [*library.frustum_gaussians(*rays), *library.frustum_gaussians(*rays, full=True, cylinder=True)]


@_case("integrated_positional_encoding")
def _(library: Any, device: str) -> Sequence[Tensor]:
    inputs = [x.to(device).requires_grad_() for x in (2 * torch.rand(500, 3) - 1, torch.rand(500, 3) / 50)]
    return with_gradients([library.integrated_positional_encoding(*inputs, 8)], inputs)


@_case("integrated_directional_encoding")
def _(library: Any, device: str) -> Sequence[Tensor]:
    directions = torch.nn.functional.normalize(torch.randn(500, 3), dim=-1)
    inputs = [x.to(device).requires_grad_() for x in (directions, torch.rand(500))]
    return with_gradients([library.integrated_directional_encoding(*inputs, 5)], inputs)


@_case("distortion_loss, interlevel_loss")
def _(library: Any, device: str) -> Sequence[Tensor]:
    edges, weights = histogram(device)
    proposal_edges, proposal = histogram(device, bins=24)
    weights, proposal = (x / x.sum(-1, keepdim=True) for x in (weights, proposal))
    inputs = [weights.requires_grad_(), proposal.requires_grad_()]
    losses = (
        library.distortion_loss(edges, weights),
        library.interlevel_loss(edges, weights, proposal_edges, proposal),
    )
    return with_gradients(losses, inputs)


def _torus(around: int = 24, across: int = 12) -> ops.MeshTree:
    u, v = torch.meshgrid(*(2 * math.pi * torch.arange(n) / n for n in (around, across)), indexing="ij")
    radius = 0.6 + 0.25 * v.cos()
    vertices = torch.stack((radius * u.cos(), radius * u.sin(), 0.25 * v.sin()), -1).reshape(-1, 3)
    a = torch.arange(around * across, dtype=torch.int32).view(around, across)
    b, c, d = a.roll(-1, 0), a.roll((-1, -1), (0, 1)), a.roll(-1, 1)
    return ops.mesh_tree(vertices, torch.stack((a, b, c, a, c, d), -1).reshape(-1, 3))


# ------------------------------------------------------------------------------------- kernels of networks, and marches


def _field(device: str) -> tuple[fields.FilmSirenSDF, Any]:
    torch.manual_seed(0)
    field = fields.FilmSirenSDF(width=64, latent_size=8).requires_grad_(False)
    latents = torch.randn(1, 8).to(device)
    return field.to(device), field.condition(latents)


def _doubled(network: ops.FilmSirenNetwork) -> ops.FilmSirenNetwork:
    doubled: dict[str, Any] = {
        name: value.double() for name, value in network._asdict().items() if isinstance(value, Tensor)
    }
    return network._replace(**doubled)


def _network(device: str) -> float:
    on_cpu, network = (field.network(condition) for field, condition in map(_field, ("cpu", device)))
    assert on_cpu is not None and network is not None
    points, image = 2 * torch.rand(1000, 3) - 1, torch.zeros(1000, dtype=torch.int64)
    expected = reference.film_siren_sample(points.double(), image, _doubled(on_cpu))
    given = points.to(device), image.to(device), network
    return max(_largest(ops.film_siren_sample(*given), expected), difference(ops.film_siren(*given), expected[0]))


def _perceptron() -> float:
    torch.manual_seed(0)
    sizes = (5, 33, 70, 1)
    layers = [torch.nn.Linear(a, b) for a, b in pairwise(sizes)]
    weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    given = [torch.randn(1000, 5, requires_grad=True), *weights, *biases]

    def found(function: Any, x: Tensor, *parameters: Tensor) -> list[Tensor]:
        out = function(x, parameters[: len(layers)], parameters[len(layers) :])
        return [out, *torch.autograd.grad(out.square().mean(), (x, *parameters))]

    doubled = [tensor.detach().double().requires_grad_() for tensor in given]
    with torch.enable_grad():
        return _largest(found(ops.perceptron, *given), found(reference.perceptron, *doubled))


def _fog(points: Tensor, directions: Tensor) -> Tensor:
    return 20 * (1 + (9 * points).sin().prod(1)) ** 4 + directions[:, 0].abs()


def _grid_march(device: str, limit: float = 7.0) -> float:
    torch.manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(200, 3, dtype=torch.float64), dim=1)
    near, jitter = torch.rand(200, dtype=torch.float64), torch.rand(200, dtype=torch.float64)
    here = ops.GridMarch(directions / 2, directions, near, near + 1.5, jitter, torch.rand(12**3) < 0.3, 12, 0.031)
    moved: dict[str, Any] = {name: x.to(device) for name, x in here._asdict().items() if isinstance(x, Tensor)}
    march = here._replace(**moved)
    depth, reached = torch.zeros_like(march.near), torch.zeros(201, dtype=torch.int64, device=device)
    offsets, following = ops.march_count(march, 10**6)
    some = ops.march_samples(march, offsets, int(offsets[-1]))
    ops.march_reached(_fog(some.points, some.directions), some.deltas, offsets, depth, reached, following, limit)
    offsets = reached.cumsum(0)
    found = ops.march_samples(march, offsets, int(offsets[-1]))
    expected, expected_offsets = reference.grid_march(here, _fog, limit)
    return _largest([*found, offsets], [*expected, expected_offsets])


def _axes(device: str) -> Tensor:
    return cameras.rotate_axes((torch.tensor([0.4]), torch.tensor([0.7]))).to(device)


def _trace(device: str) -> float:
    """The share of rays whose hits differ, of a network traced by one call and as a function in plain torch."""
    field, condition = _field(device)
    network = field.to("cpu").network(_field("cpu")[1])
    assert network is not None

    def plain(points: Tensor) -> Tensor:
        return reference.film_siren(points, torch.zeros(len(points), dtype=torch.int64), network)

    field.to(device)
    expected = raycast.multiscale(_axes("cpu"), (16, 2), None, plain, lipschitz=field.lipschitz)
    found = raycast.multiscale(_axes(device), (16, 2), None, field, condition=condition)
    hits = [one.mask.masked_scatter(one.mask, one.hit).cpu() for one in (found, expected)]
    return (hits[0] != hits[1]).float().mean().item()


def _sphere(device: str, radius: float = 0.6) -> float:
    """The error of the depth of a sphere, which is a quadratic formula; infinite where hits differ by too much."""
    axes = _axes(device)
    found = raycast.multiscale(axes, (16, 2), None, fields.Sphere(radius).to(device))
    origins, directions = (x.cpu().view(-1, 3).double() for x in cameras.ray_grid(axes, 32))
    along = (origins * directions).sum(1)
    inside = along.square() - origins.square().sum(1) + radius**2
    hit = found.mask.masked_scatter(found.mask, found.hit).cpu().view(-1)
    depth = torch.zeros(hit.shape).masked_scatter(found.mask.cpu().view(-1), found.distances.cpu())
    if (hit != (inside > 0)).float().mean() > _HITS:
        return math.inf
    both = hit & (inside > 0)
    return (depth.double() + along + inside.clamp(min=0).sqrt())[both].abs().max().item()


def _coverage(device: str, radius: float = 0.6, side: int = 32) -> float:
    """The relative error of the area that a sphere covers: a disc."""
    image = raycast.render(sdf=fields.Sphere(radius).to(device), axes=_axes(device), resolution=side)
    distance = 1 / math.tan(cameras.DEFAULT_FOV / 2)
    rim = math.tan(math.asin(radius / distance)) * distance  # on the plane through the origin, half as wide as 1
    return abs(image.alpha.sum().item() * (2 / side) ** 2 / (math.pi * rim**2) - 1)
