"""Fields and pictures in torch's modes: inference mode, autocast, batches of none, compiled modules, copies."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sdfgan import cameras, fields, ops, raycast
from sdfgan.fields.coordinate import CoordinateSDF, Perceptron
from sdfgan.fields.dfr import DfrSDF
from sdfgan.fields.function import FunctionField, as_field
from sdfgan.fields.hash_grid import HashGrid
from sdfgan.fields.mlp import MlpSDF


class UserNet(nn.Module):
    """A ball whose radius is the first number of a latent, with a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, points: Tensor, latents: Tensor) -> Tensor:
        return (points * self.scale).norm(dim=-1, keepdim=True) - latents[:, :1]


class Hashed(CoordinateSDF):
    """A ball, and a little of a hash grid's features."""

    def __init__(self) -> None:
        grid = HashGrid(levels=2, log2_size=8, coarsest=4, finest=8, smooth=True)
        super().__init__(Perceptron(grid.width, [16], "softplus"), grid)

    def raw(self, points: Tensor) -> Tensor:
        return points.norm(dim=-1) - 0.4 + super().raw(points)


FIELDS: dict[str, Callable[[], nn.Module]] = {
    "analytic": lambda: fields.Box((0.4, 0.3, 0.3)) | fields.Sphere(0.35),
    "hash grid": Hashed,
    "film-siren": lambda: fields.FilmSirenSDF(width=32, latent_size=4),
    "odd film-siren": lambda: fields.FilmSirenSDF(width=20, latent_size=4),
    "mlp": lambda: MlpSDF(width=16, latent_size=4),
    "dfr": lambda: DfrSDF(width=16, latent_size=4, mapping_width=16),
    "user's": UserNet,
}
LATENTS = torch.tensor([[0.5, 0.1, -0.2, 0.3], [0.3, -0.3, 0.4, 0.0]])


def views(count: int) -> Tensor:
    return cameras.rotate_axes((torch.full((count,), 0.3), torch.linspace(0.5, 2, count)))


def picture(field: nn.Module, count: int = 2, **options: object) -> raycast.Rendering:
    latents = None if isinstance(field, fields.AnalyticField | CoordinateSDF) else LATENTS[:count].clone()
    return raycast.render(sdf=field, axes=views(count), latents=latents, resolution=16, **options)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("edge", ["exact", "neighbour"])
def test_inference_mode_shows_what_no_grad_shows(name: str, edge: str) -> None:
    torch.manual_seed(0)
    field = FIELDS[name]()
    latents = None if name in ("analytic", "hash grid") else LATENTS
    points, image = torch.rand(3, 3) - 0.5, torch.tensor([0, 0, 1])

    def gradient(field: nn.Module) -> Tensor:
        kind = as_field(field)
        return kind.sdf_and_gradient(points, kind.condition(latents), image)[1]

    with torch.no_grad():
        usual, slope = picture(field, edge=edge), gradient(field)
    with torch.inference_mode():
        torch.manual_seed(0)
        other = FIELDS[name]()  # its parameters are tensors of inference mode
        pictures = [picture(field, edge=edge), picture(other, edge=edge)]
        torch.testing.assert_close(gradient(other), slope, atol=1e-5, rtol=1e-4)
    for shown in pictures:
        torch.testing.assert_close(shown.rgba, usual.rgba, atol=1e-5, rtol=0)
        torch.testing.assert_close(shown.normals, usual.normals, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_moves_no_surface(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    field = FIELDS[name]()
    with torch.no_grad():
        usual = picture(field)
    with torch.autocast("cpu", dtype):
        with torch.no_grad():
            shown = picture(field)
        picture(field).rgba.square().mean().backward() if list(field.parameters()) else None
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in field.parameters())
    torch.testing.assert_close(
        shown.alpha, usual.alpha, atol=0.02, rtol=0
    )  # network families do shorten their products
    assert (shown.rgb - usual.rgb).abs().mean() < 0.01
    assert shown.rgb.dtype == torch.float32


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("edge", ["exact", "neighbour", "dfr"])
def test_no_cameras_give_no_pictures(name: str, edge: str) -> None:
    shown = picture(FIELDS[name](), 0, edge=edge, supersample=2)
    assert shown.rgb.shape == (0, 3, 16, 16) and shown.depth.shape == (0, 1, 16, 16) and shown.hit.shape[0] == 0
    assert len(raycast.multiscale(views(0), (4, 4), LATENTS[:0], lambda p, latents: p.norm(dim=-1) - 0.4).points) == 0


@pytest.mark.parametrize("name", FIELDS)
def test_copies_are_the_same_field(name: str) -> None:
    torch.manual_seed(0)
    field = FIELDS[name]()
    with torch.no_grad():
        for copied in (copy.deepcopy(field), pickle.loads(pickle.dumps(field))):
            assert torch.equal(picture(field).rgba, picture(copied).rgba)


@pytest.mark.parametrize("count", [1, 3])
def test_shapes_and_cameras_are_as_many(count: int) -> None:
    axes, latents = views(2), torch.zeros(count, 4)
    net = fields.FilmSirenSDF(width=16, latent_size=4)
    condition = net.condition(latents)
    for sdf in (net, UserNet()):
        with pytest.raises(ValueError, match=rf"^render: latents must be \[2, L\], got \[{count}, 4\]$"):
            raycast.render(sdf=sdf, axes=axes, latents=latents, resolution=8)
        with pytest.raises(ValueError, match=rf"^multiscale: latents must be \[2, L\].* got \[{count}, 4\]$"):
            raycast.multiscale(axes, (8,), latents, sdf)
    with pytest.raises(ValueError, match=f"condition is of {count} latents, but there are 2 cameras"):
        raycast.render(sdf=net, axes=axes, condition=condition, resolution=8)
    balls = fields.Sphere(torch.full((3,), 0.4)).coloured((1.0, 0.0, 0.0)).translated((0.1, 0.0, 0.0))
    with pytest.raises(ValueError, match="parameters for 3 images, but there are 2 cameras"):
        raycast.render(sdf=balls, axes=axes, resolution=8)
    with pytest.raises(ValueError, match="parts have parameters for 2 and 3 images"):
        raycast.render(sdf=balls | fields.Sphere(torch.full((2,), 0.3)), axes=axes, resolution=8)


def by_dfr(targets: Tensor, latents: Tensor, mask: Tensor, geomOnly: bool = False) -> Tensor:
    assert geomOnly
    return targets.norm(dim=-1, keepdim=True) - latents[mask][:, :1]


class DfrNet(nn.Module):
    def forward(self, x: Tensor, latents: Tensor, mask: Tensor, geomOnly: bool = False) -> Tensor:
        return by_dfr(x, latents, mask, geomOnly)


class Callable2:
    def __call__(self, points: Tensor, latents: Tensor) -> Tensor:
        return points.norm(dim=-1) - latents[:, 0]


def optional(points: Tensor, latents: Tensor | None = None) -> Tensor:
    return points.norm(dim=-1) - (0.2 if latents is None else latents[:, 0])


CALLED = {
    "module": UserNet(),
    "compiled module": torch.compile(UserNet(), backend="eager"),
    "compiled function": torch.compile(lambda points, latents: points.norm(dim=-1) - latents[:, 0], backend="eager"),
    "method": UserNet().forward,
    "callable": Callable2(),
    "partial": functools.partial(lambda p, c, r: p.norm(dim=-1) - r * c[:, 0], r=1.0),
    "partial module": functools.partial(UserNet()),
    "any arguments": lambda *given: given[0].norm(dim=-1) - given[1][:, 0],
    "with a default": optional,
    "dfr's function": by_dfr,
    "dfr's module": DfrNet(),
    "dfr's compiled module": torch.compile(DfrNet(), backend="eager"),
}


@pytest.mark.parametrize("name", CALLED)
@pytest.mark.parametrize("algorithm", ["march", "dfr"])
def test_latents_reach_what_takes_them(name: str, algorithm: str) -> None:
    samples = raycast.multiscale(views(2), (8, 4), LATENTS, CALLED[name], 0.005, algorithm=algorithm)
    for row in range(2):
        radius = samples.points[samples.hit & (samples.image == row)].norm(dim=-1).mean().item()
        assert radius == pytest.approx(LATENTS[row, 0].item(), abs=0.006)
    shown = raycast.render(sdf=CALLED[name], axes=views(2), latents=LATENTS, resolution=16)
    shown.rgb.sum().backward() if shown.rgb.requires_grad else None
    assert shown.alpha[0].sum() > 2 * shown.alpha[1].sum()


def test_calls_that_cannot_be_made_are_refused_in_words() -> None:
    assert raycast.multiscale(views(1), (8,), None, optional).hit.any()  # keeps its default
    with pytest.raises(TypeError, match="sdf must take points, or points and latents, but requires a, b, c"):
        FunctionField(lambda a, b, c: a)
    with pytest.raises(ValueError, match="sdf takes points and latents, but no latents were given"):
        raycast.multiscale(views(1), (8,), None, DfrNet())
    with pytest.raises(TypeError, match="sdf must return a Tensor, got tuple"):
        raycast.multiscale(views(1), (8,), None, lambda points: (points,))


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("name", FIELDS)
def test_vmap_gives_what_a_loop_gives(name: str, graph: bool) -> None:
    """Or an error that says what to do instead, where torch cannot differentiate our operators in it."""
    torch.manual_seed(0)
    field = as_field(FIELDS[name]())
    condition = field.condition(None if name in ("analytic", "hash grid") else LATENTS[:1])
    points, image = torch.rand(3, 5, 3) - 0.5, torch.zeros(5, dtype=torch.int64)

    def gradient(points: Tensor) -> tuple[Tensor, Tensor]:
        return field.sdf_and_gradient(points, condition, image)

    with torch.set_grad_enabled(graph):
        values = torch.func.vmap(lambda points: field.sdf(points, condition, image))(points)
        torch.testing.assert_close(values, torch.stack([field.sdf(part, condition, image) for part in points]))
        if name in ("mlp", "hash grid"):
            with pytest.raises(
                RuntimeError, match=r"sdf_and_gradient: torch.func cannot .*; call it outside, with the"
            ):
                torch.func.vmap(gradient)(points)
            return
        found = torch.func.vmap(gradient)(points)
        wanted = [torch.stack(parts) for parts in zip(*map(gradient, points), strict=True)]
    for actual, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_operators_under_vmap() -> None:
    edges, weights = torch.linspace(0, 1, 9).expand(6, 9).contiguous(), torch.rand(4, 6, 8)

    def drawn(weights: Tensor) -> Tensor:
        return ops.sample_pdf(edges, weights, 3, u=torch.tensor([0.1, 0.5, 0.9]))

    assert torch.equal(torch.func.vmap(drawn)(weights), torch.stack([drawn(part) for part in weights]))
    assert torch.equal(torch.func.vmap(drawn, 1)(weights.movedim(0, 1)), torch.stack([drawn(part) for part in weights]))
    field = fields.FilmSirenSDF(width=32, latent_size=4)
    with torch.no_grad():  # by the fused kernel, whose weights are a list
        points = torch.rand(5, 3) - 0.5

        def distance(latent: Tensor) -> Tensor:
            return field.sdf(points, field.condition(latent[None]), torch.zeros(5, dtype=torch.int64))

        torch.testing.assert_close(torch.func.vmap(distance)(LATENTS), torch.stack([distance(row) for row in LATENTS]))

    def marched(depth: Tensor) -> Tensor:
        torch.ops.sdfgan.march_reached(depth, depth, torch.tensor([0, 2]), depth[:1].clone(), depth, depth, 1.0)
        return depth

    with pytest.raises(
        RuntimeError, match=r"march_reached: changes its arguments, which torch.func.vmap does not allow"
    ):
        torch.func.vmap(marched)(torch.rand(2, 2))
    axes = views(1).expand(3, 1, 3, 3)
    for function in (
        lambda axes: raycast.render(sdf=fields.Sphere(0.4), axes=axes, resolution=8).rgba,
        lambda axes: raycast.multiscale(axes, (4, 2), None, fields.Sphere(0.4)).points,
    ):
        with pytest.raises(
            RuntimeError, match=r": not under torch.func.vmap; give all cameras and latents in one batch"
        ):
            torch.func.vmap(function)(axes)
