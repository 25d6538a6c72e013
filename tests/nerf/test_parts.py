"""The parts of a radiance-field run: marching, paths of cameras, fields, colours."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import posed
from sdfgan import ops
from sdfgan.cameras import look_at
from sdfgan.data.scenes import Views
from sdfgan.fields import nerf, radiance_grid, small_mlp
from sdfgan.fields.nerf import NerfField, WithNormals, density_normals
from sdfgan.fields.radiance_grid import RadianceGrid
from sdfgan.fields.ref_nerf import RefNerfField, linear_to_srgb
from sdfgan.nerf.config import NerfConfig
from sdfgan.nerf.marching import MarchingGrid, Packed, render_packed
from sdfgan.nerf.mesh import DensitySurface
from sdfgan.nerf.models import make_model
from sdfgan.nerf.objective import Batch, ray_entropy, with_unseen
from sdfgan.nerf.report import Look, SceneRenderer, depth_span, neutral, orbit, path_cameras
from sdfgan.ops import pixel_views, sample_pixels
from sdfgan.ops.pixels import PixelSamples
from sdfgan.training.device import generator_on
from sdfgan.volume import OccupancyGrid, Radiance, Rays, RaySamples, Sampling, render


class Ball:
    """A volume of constant density and smooth colour in a ball."""

    def __init__(self, density: float = 6.0, radius: float = 0.6, centre: float = 0.0) -> None:
        self.thick, self.radius, self.centre = density, radius, torch.tensor([0, 0, centre])
        self.asked = 0

    def density(self, places: RaySamples, condition: Any = None) -> Tensor:
        self.asked += len(places.points)
        return self.thick * ((places.points - self.centre).norm(dim=1) < self.radius).float()

    def radiance(self, places: RaySamples, condition: Any = None) -> Radiance:
        return Radiance(self.density(places), places.points * 0.2 + 0.5)


def some_rays(near: float, far: float, count: int = 40) -> Rays:
    """From around (0, 0, 3) towards the ball, some past it."""
    random = torch.Generator().manual_seed(0)
    origins = torch.tensor([0.0, 0, 3]) + 0.1 * torch.randn(count, 3, generator=random)
    target = torch.randn(count, 3, generator=random) * 0.4
    directions = torch.nn.functional.normalize(target - origins, dim=1)
    return Rays(origins, directions, torch.full((count,), near), torch.full((count,), far))


@pytest.mark.parametrize("contracted", [False, True])
def test_marching_skips_what_is_empty_and_sees_the_same(contracted: bool) -> None:
    ball = Ball(centre=-2.5 if contracted else 0.0)
    grid, random = MarchingGrid(64, 1600, contracted), torch.Generator().manual_seed(1)
    for _ in range(8):
        grid.refresh(ball.density, random)
    rays = some_rays(2.0, 8.0 if contracted else 4.0)
    ball.asked = 0
    packed = grid.march(rays, torch.full((40,), 0.5), ball)
    assert packed.evaluated == ball.asked < 0.4 * 40 * (rays.far - rays.near)[0] / grid.step
    seen = render_packed(packed, ball, torch.ones(3))
    dense = render(ball, rays, sampling=Sampling((1500,)), background=torch.ones(3))
    # A cell that the ball only touches may have been missed.
    assert (seen.rgb - dense.rgb).abs().amax(1).quantile(0.85) < 0.03
    assert (seen.opacity - dense.opacity).abs().mean() < 0.03
    hit = dense.opacity > 0.5
    assert hit.any() and not hit.all()
    assert (seen.depth - dense.depth)[hit & (seen.opacity > 0.5)].abs().median() < 0.02
    assert seen.depth[~(dense.opacity > 0)].isinf().all()


def test_a_march_ends_where_the_light_does() -> None:
    grid, rays = MarchingGrid(8, 400, False), some_rays(2.0, 4.0)
    thin, thick = (grid.march(rays, torch.zeros(40), Ball(density)) for density in (0.1, 1000.0))
    assert len(thin.distances) > 1.5 * len(thick.distances) and thin.evaluated > thick.evaluated
    assert torch.equal(thin.offsets[1:] - thin.offsets[:-1], torch.full((40,), len(thin.distances) // 40))
    assert thin.distances[: thin.offsets[1]].diff().min() > 0
    assert (thick.places.points.norm(dim=1) < 0.6 - 3 * grid.step).sum() == 0  # nothing behind the first few


def test_a_cell_asked_twice_remembers_the_larger_density() -> None:
    class Fog(Ball):
        def density(self, places: RaySamples, condition: Any = None) -> Tensor:
            return torch.arange(len(places.points), 0, -1).float()

    grid = MarchingGrid(8, 64, False)
    grid.updates.fill_(8)  # from now on some cells
    grid.refresh(Fog().density, torch.Generator().manual_seed(0))
    cells = torch.randint(8**3, (64,), generator=torch.Generator().manual_seed(0))
    expected = {cell: 64 - i for i, cell in reversed(list(enumerate(cells.tolist())))}
    assert len(expected) < 64 and all(grid.density[cell] == value for cell, value in expected.items())


def test_only_cells_that_are_asked_forget() -> None:
    grid = OccupancyGrid(8)
    grid.density.fill_(1.0)
    grid.seen[: 8**3 // 2] = False
    asked: list[Tensor] = []

    def nothing(points: Tensor) -> Tensor:
        asked.append(grid.cells(points))
        return torch.zeros(len(points))

    grid.update(nothing, torch.Generator().manual_seed(0), share=0.25, decay=0.5)
    (cells,) = asked
    assert len(cells) == 64 > len(cells.unique()) and grid.seen[cells].all()
    expected = torch.ones(8**3)
    expected[cells] = 0.5
    assert torch.equal(grid.density, expected)


def test_a_generator_on_a_device_is_decided_by_that_on_the_host(device: torch.device) -> None:
    draws = []
    for seed in (3, 3, 4):
        random = generator_on(device, torch.Generator().manual_seed(seed))
        draws.append(torch.rand(5, generator=random, device=device))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    host = torch.Generator().manual_seed(3)
    assert not torch.equal(
        *(torch.rand(5, generator=generator_on(device, host), device=device) for _ in range(2))
    )  # it goes on


def test_depth_of_a_march_is_where_the_field_was_asked() -> None:
    """The front of a very dense ball, met anywhere within a step of its surface."""
    grid, ball = MarchingGrid(8, 200, False), Ball(density=1e6)
    ray = Rays(torch.tensor([[0.0, 0, 3]]), torch.tensor([[0.0, 0, -1]]), torch.tensor([2.0]), torch.tensor([4.0]))
    jitters = torch.linspace(0, 0.95, 20)
    marched = (grid.march(ray, jitter[None], ball) for jitter in jitters)
    depths = torch.cat([render_packed(packed, ball, torch.zeros(3)).depth for packed in marched])
    assert ((depths >= 2.4) & (depths <= 2.4 + grid.step)).all()
    assert depths.mean().item() == pytest.approx(2.4 + grid.step / 2, abs=0.1 * grid.step)


@pytest.mark.parametrize("model", ["nerf", "mip-nerf-360"])
def test_rays_beside_the_cube_and_ends_that_are_given(model: Any) -> None:
    sizes = {"width": 8, "layers": 2, "coarse_samples": 4, "fine_samples": 4, "device": "cpu"}
    beside = PixelSamples(torch.tensor([[0.0, -3, 5]]), torch.tensor([[0.0, 0, -1]]), torch.tensor([1e-3]), None)
    bounded = make_model(NerfConfig(model=model, **sizes).resolved(), bounded=True)
    assert bounded.look(bounded.rays(beside), torch.ones(3)).rgb.isfinite().all()
    given = make_model(NerfConfig(model=model, near=0.01, far=5000.0, **sizes).resolved(), bounded=False)
    assert (given.rays(beside).near.item(), given.rays(beside).far.item()) == (pytest.approx(0.01), 5000)
    usual = make_model(NerfConfig(model=model, **sizes).resolved(), bounded=False)
    rays = usual.rays(beside)
    assert (rays.near.item(), rays.far.item()) == (pytest.approx(0.2), 1000)
    asked: list[Tensor | None] = []
    usual.network.encoder.register_forward_hook(lambda _, places, __: asked.append(places[0].covariances))
    usual.look(rays, torch.zeros(3))
    if model != "nerf":
        assert asked[0] is not None and asked[0].shape == (4, 3, 3)  # whole: contraction mixes their axes


def test_cells_that_no_camera_sees_stay_empty() -> None:
    grid = MarchingGrid(32, 64, False)
    views = views_of(look_at(torch.tensor([[0.0, 0, 2.5], [0.0, 0.1, 2.4]])))
    grid.see(views.cameras, views.sizes)
    edge = torch.tensor([[0.98, 0.0, 0.98], [0.0, 0.0, 0.9], [0.3, 0.2, -0.9]])
    first = grid.occupied[grid.cells(edge)].tolist()
    grid.refresh(Ball(radius=9.0).density, torch.Generator())
    assert first == grid.occupied[grid.cells(edge)].tolist() == [False, True, True]


def test_rays_that_meet_nothing() -> None:
    grid, ball = MarchingGrid(8, 64, False), Ball()
    grid.occupied.zero_()
    packed = grid.march(some_rays(2.0, 4.0), torch.zeros(40), ball)
    seen = render_packed(packed, ball, torch.tensor([0.1, 0.2, 0.3]))
    assert len(packed.distances) == 0 and ball.asked == 0
    assert torch.equal(seen.rgb, torch.tensor([[0.1, 0.2, 0.3]]).expand(40, 3))
    assert grid.march(some_rays(2.0, 4.0, count=0), torch.zeros(0), ball).offsets.tolist() == [0]


def views_of(poses: Tensor) -> Views:
    count = len(poses)
    intrinsics = torch.tensor([[30.0, 30, 10, 10]]).expand(count, 4).contiguous()
    sizes = torch.full((count, 2), 20)
    return Views(
        [""] * count, torch.zeros(400 * count, 4, dtype=torch.uint8), sizes, pixel_views(poses, intrinsics, sizes)
    )


def test_an_orbit_goes_round_where_the_cameras_do() -> None:
    around = orbit(views_of(posed.cameras(12)), 8, 0.5)
    assert around.widths.tolist() == [10] * 8 and around.intrinsics[0].tolist() == [15, 15, 5, 5]
    centre = sample_pixels(around, around.starts[:-1] + 55)  # a pixel next to the middle
    miss = torch.linalg.cross(centre.origins, centre.directions).norm(dim=1)
    assert (miss < 0.2).all()  # all look at the origin
    azimuth = torch.atan2(around.camera_to_world[:, 0, 3], around.camera_to_world[:, 2, 3])
    assert azimuth.sort().values.diff() == pytest.approx(math.pi / 4 * torch.ones(7).numpy(), abs=1e-3)


def test_an_orbit_swings_where_the_cameras_are_on_one_side() -> None:
    angles = torch.linspace(2.7, 3.9, 9)  # across the half turn, where angles jump
    poses = look_at(torch.stack((angles.sin(), torch.full_like(angles, 0.2), angles.cos()), 1))
    path = orbit(views_of(poses), 16, 1.0)
    azimuth = torch.atan2(path.camera_to_world[:, 0, 3], path.camera_to_world[:, 2, 3]) % (2 * math.pi)
    assert 2.7 < azimuth.min() < 3.0 and 3.6 < azimuth.max() < 3.9
    assert path_cameras(poses, views_of(poses), 0.3).widths[0] == 6


FIELDS = [
    lambda contracted: NerfField(16, 5, 3, contracted),
    lambda contracted: RefNerfField(16, 2, 3, contracted),
    lambda contracted: RadianceGrid(16, levels=3, log2_size=10, finest=16, contracted=contracted),
]


@pytest.mark.parametrize("make", FIELDS)
@pytest.mark.parametrize("contracted", [False, True])
def test_fields_answer_densities_colours_and_normals(
    make: Callable[[bool], Any], contracted: bool, assert_close: Callable[[Tensor, Tensor], None]
) -> None:
    torch.manual_seed(0)
    field = make(contracted)
    points = torch.randn(6, 3) * (30 if contracted else 0.5)
    directions = torch.nn.functional.normalize(torch.randn(6, 3), dim=1)
    places = RaySamples(points, directions)
    with torch.no_grad():
        answer = WithNormals(field).radiance(places)
        assert_close(answer.density, field.density(places))
        assert (answer.density >= 0).all() and answer.rgb.isfinite().all() and not answer.rgb.requires_grad
        assert answer.normals is not None
        assert_close(answer.normals.norm(dim=1), torch.ones(6))
        # The colour depends on the direction, the density does not.
        other = field.radiance(RaySamples(points, -directions))
        assert_close(other.density, answer.density)
        assert (other.rgb - answer.rgb).abs().max() > 1e-4
    with torch.inference_mode():
        same = WithNormals(field).radiance(RaySamples(points.clone(), directions.clone()))
        assert_close(same.rgb, answer.rgb)
        assert same.normals is not None
        torch.testing.assert_close(same.normals, answer.normals, rtol=1e-4, atol=1e-5)
    if isinstance(field, RadianceGrid):
        return
    # Cones as thin as a ray ask for points.
    with torch.no_grad():
        thin = field.density(RaySamples(points, directions, torch.zeros(6, 3)))
        torch.testing.assert_close(thin, answer.density, rtol=1e-4, atol=1e-5)
        assert (field.density(RaySamples(points, directions, torch.full((6, 3), 10.0))) - thin).abs().max() > 1e-4


def test_depths_of_large_pictures() -> None:
    depth = torch.linspace(1, 2, 2**24 + 2).view(1, 2, -1)
    low, high = depth_span(Look(depth, torch.ones_like(depth), depth, None))
    assert (low, high) == pytest.approx((1.01, 1.99), abs=1e-3)


class Everywhere:
    """A model that sees one colour wherever it looks."""

    colour = torch.tensor([0.25, 0.5, 0.75])

    def rays(self, pixels: PixelSamples) -> PixelSamples:
        assert pixels.directions.isfinite().all()
        return pixels

    def look(self, rays: PixelSamples, background: Tensor, normals: bool) -> Look:
        ones = torch.ones(len(rays.directions))
        return Look(self.colour.expand(len(ones), 3), ones, ones, None)


@pytest.mark.parametrize("hidden", ["mask", "fold", "both", "all"])
def test_scores_are_of_known_pixels(hidden: str) -> None:
    """A lens x (1 - 0.4 r^2) folds at r = sqrt(1 / 1.2), which it shows at 2/3 of that; numpy says the rest."""
    side, focal, random = 24, 12.0, np.random.default_rng(0)
    place = (np.arange(side) + 0.5 - side / 2) / focal
    known = (
        np.hypot(*np.meshgrid(place, place)) < 2 / 3 / 1.2**0.5
        if hidden in ("fold", "both")
        else np.ones((side, side), bool)
    )
    mask = np.ones((side, side), bool)
    mask[:, : {"mask": 9, "fold": 0, "both": 9, "all": side}[hidden]] = False
    known &= mask
    pixels = np.full((side, side, 4), 255, np.uint8)
    pixels[..., :3] = random.integers(0, 256, (side, side, 3))
    pixels[~known, :3] = (255, 0, 255)
    lens = torch.tensor([[-0.4, 0, 0, 0] if hidden in ("fold", "both") else [0.0] * 4] * 2)
    sizes = torch.full((2, 2), side)
    masks = torch.from_numpy(np.concatenate((mask.ravel(), np.ones(side**2, bool))))
    centred = torch.tensor([[focal, focal, side / 2, side / 2]] * 2)
    cameras = pixel_views(posed.cameras(2), centred, sizes, lens, None, masks)
    views = Views(["a", "b"], torch.from_numpy(pixels).view(-1, 4).repeat(2, 1), sizes, cameras)
    observer = SceneRenderer(Everywhere(), torch.ones(3), 100)  # type: ignore[arg-type]
    seen = observer.look(cameras, 0)
    assert (seen.known.numpy() == known).all() and (neutral(seen.rgb, seen.known)[:, ~known] == 0.5).all()
    scores = observer.scores(views, [0])
    if hidden == "all":
        assert scores == {"views": 0} and observer.scores(views, [0, 1])["views"] == 1
        return
    apart = pixels[known][:, :3] / 255 - Everywhere.colour.numpy()
    assert scores["psnr"] == pytest.approx(-10 * np.log10((apart**2).mean()), abs=1e-4) and scores["views"] == 1
    other = views.pixels.clone()
    other[: side**2][~torch.from_numpy(known).ravel()] = 7
    assert observer.scores(dataclasses.replace(views, pixels=other), [0]) == scores


def test_meshes_ask_models_of_cones_for_gaussians() -> None:
    torch.manual_seed(0)
    field, points = NerfField(16, 2, 12), torch.randn(5, 3)
    down = torch.tensor([0.0, -1, 0]).expand(5, 3)
    with torch.no_grad():
        wide = field.density(RaySamples(points, down, torch.full((5, 3), 0.1**2)))
        for deviation, density in ((None, field.density(RaySamples(points, down))), (0.1, wide)):
            torch.testing.assert_close(DensitySurface(field, 2.0, deviation=deviation).sdf(points), 1 - density / 2)
    assert DensitySurface(field, 2.0, deviation=0.1).rgb(points).shape == (5, 3)


def test_normals_of_a_density_point_down_its_gradient() -> None:
    torch.manual_seed(0)
    field = NerfField(16, 2, 2)
    points = torch.randn(4, 3)
    places = RaySamples(points, points)
    normals = WithNormals(field).radiance(places).normals
    assert normals is not None
    sides = [
        field.density(RaySamples(points + 1e-3 * axis, points))
        - field.density(RaySamples(points - 1e-3 * axis, points))
        for axis in torch.eye(3)
    ]
    expected = -torch.nn.functional.normalize(torch.stack(sides, 1), dim=1)
    assert ((normals * expected).sum(1) > 0.99).all()


def test_noise_is_drawn_from_the_generator_alone() -> None:
    field = RefNerfField(16, 2, 2, noise=0.5)
    points = torch.randn(4, 3)
    places = RaySamples(points, torch.nn.functional.normalize(points, dim=1))
    first, again, other = (field.radiance(places, torch.Generator().manual_seed(s)).rgb for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(field.radiance(places).rgb, field.radiance(places).rgb)


@pytest.mark.parametrize("make", [*FIELDS[:2], lambda contracted: NerfField(16, 2, 3, contracted)])
def test_layers_are_one_kernel_on_a_cpu_and_the_same(
    make: Callable[[bool], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers and gradients are those of torch's layers; normals may be differentiated in both."""
    torch.manual_seed(0)
    field, points = make(False), torch.randn(50, 3)
    places = RaySamples(points, torch.nn.functional.normalize(points, dim=1))
    asked: list[Tensor] = []

    def results() -> list[Tensor]:
        answer = field.radiance(places)
        _, normals = density_normals(field.density, places, create_graph=True)
        total = answer.density.sum() + answer.rgb.square().sum() + (normals * points).square().sum()
        return [answer.density, answer.rgb, normals, *torch.autograd.grad(total, list(field.parameters()))]

    kernel = small_mlp.ops.perceptron
    monkeypatch.setattr(small_mlp.ops, "perceptron", lambda x, *layers: (asked.append(x), kernel(x, *layers))[1])
    fused = results()
    assert asked
    monkeypatch.setattr(nerf, "can_fuse", lambda x: False)
    for actual, expected in zip(fused, results(), strict=True):
        # Rows of less than a thousandth of a gradient are left out.
        assert torch.allclose(actual, expected, rtol=1e-3, atol=2e-3 * expected.abs().max().item())


def test_a_gradient_leaves_out_what_is_negligible() -> None:
    torch.manual_seed(0)
    x, weights, biases = torch.randn(40, 3), [torch.randn(8, 3), torch.randn(2, 8)], [torch.randn(8), torch.randn(2)]
    inputs = [tensor.requires_grad_() for tensor in (x, *weights, *biases)]
    gradient = torch.randn(40, 2)
    gradient[10:30] = 1e-6 * gradient[10:30]
    out = small_mlp.sparse_perceptron(x, weights, biases)
    found = torch.autograd.grad(out, inputs, gradient)
    expected = torch.autograd.grad(ops.perceptron(x, weights, biases), inputs, gradient)
    assert (found[0][10:30] == 0).all() and (expected[0][10:30] != 0).any()
    for actual, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-3, atol=1e-4)
    nothing = torch.autograd.grad(small_mlp.sparse_perceptron(x, weights, biases), inputs, 0 * gradient)
    assert all((part == 0).all() for part in nothing)
    empty = small_mlp.sparse_perceptron(x[:0], weights, biases)
    assert all((part == 0).all() for part in torch.autograd.grad(empty.sum(), inputs))
    gradient[3, 0] = torch.nan  # which must not get lost, or a step would be taken
    bad = torch.autograd.grad(small_mlp.sparse_perceptron(x, weights, biases), inputs, gradient)
    assert all(not part.isfinite().all() for part in bad)


def test_entropy_along_rays() -> None:
    """Alike samples have log of their number, one has none; rays that meet nothing count as having none."""
    density = torch.tensor([2.0, 2, 2, 2, 1e-3, 1e-3, 50, 0, 0], requires_grad=True)
    offsets = torch.tensor([0, 4, 6, 6, 9])
    found = ray_entropy(density, torch.full((9,), 0.5), offsets)
    assert found.tolist() == pytest.approx([math.log(4), 0, 0, 0], abs=1e-5)
    (gradient,) = torch.autograd.grad(found.sum(), density)
    assert gradient.isfinite().all() and (gradient[4:6] == 0).all()
    a = torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)
    p = a / a.sum()
    found = ray_entropy(-(1 - a).log(), torch.ones(3).double(), torch.tensor([0, 3]))
    assert found.item() == pytest.approx(-(p * p.log()).sum().item())
    assert len(ray_entropy(torch.zeros(0), torch.zeros(0), torch.zeros(1, dtype=torch.int64))) == 0


def test_rays_that_no_camera_has_pass_the_scene() -> None:
    config = NerfConfig(hash_table=8, hash_levels=2, grid_resolution=8, device="cpu").resolved()
    model = make_model(config, bounded=True)
    order = torch.randperm(4800, generator=torch.Generator().manual_seed(0))
    pixels = sample_pixels(views_of(posed.cameras(12)).cameras, order[:130], None)
    colors = torch.zeros(len(pixels.origins), 3)
    seen = Batch(model.rays(pixels), colors, colors + 1)
    batch = with_unseen(model, seen, torch.Generator().manual_seed(0))
    seen, rays = len(colors), batch.rays
    assert len(rays.near) == len(batch.background) == seen + (seen + 1) // 2 and len(batch.colors) == seen
    origins, directions = rays.origins[seen:], rays.directions[seen:]
    torch.testing.assert_close(origins.norm(dim=1), torch.full((len(origins),), pixels.origins[0].norm().item()))
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(len(origins)))
    assert (torch.cdist(origins, pixels.origins).amin(1) > 1e-3).float().mean() > 0.8  # from elsewhere
    beside, known = (
        torch.linalg.cross(one.origins, one.directions).norm(dim=1)
        for one in (Rays(origins, directions, *rays[2:4]), pixels)
    )
    assert (beside <= known[::2] + 1e-4).all() and (rays.far > rays.near).all()


def test_linear_light_as_srgb() -> None:
    values = torch.tensor([0.0, 0.001, 0.0031308, 0.214041, 1.0])
    assert linear_to_srgb(values).tolist() == pytest.approx([0, 0.01292, 0.04045, 0.5, 1.0], abs=1e-4)


@pytest.mark.parametrize("contracted", [False, True])
def test_what_a_march_knows_is_not_evaluated_again(contracted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples keep what the field found at them, in two rounds; images and gradients are those without it."""
    torch.manual_seed(0)
    field = RadianceGrid(width=16, levels=3, log2_size=10, finest=32, contracted=contracted)
    with torch.no_grad():
        field.grid.table.normal_()
    grid, rays = MarchingGrid(8, 300, contracted), some_rays(1.0, 8.0 if contracted else 5.0)
    packed = grid.march(rays, torch.full((40,), 0.5), field, keep=True)
    assert packed.places.known is not None and packed.evaluated > 40 * 32 + len(packed.distances) / 2, "a second round"
    unit, encoded, features = packed.places.known
    again = packed._replace(places=packed.places._replace(known=None))
    assert torch.equal(encoded, field.grid(field._points(packed.places)))
    assert torch.equal(features, field._features(again.places))

    def gradients(packed: Packed, *others: Tensor) -> list[Tensor]:
        seen = render_packed(packed, field, torch.ones(3))
        return list(torch.autograd.grad(seen.rgb.square().sum(), [*field.parameters(), *others], allow_unused=True))

    expected, found = gradients(again), gradients(packed)
    names = [name for name, _ in field.named_parameters()]
    for name, actual, wanted in zip(names, found, expected, strict=True):
        assert torch.allclose(actual, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max())), name
    *others, by_encoded = gradients(packed, encoded.requires_grad_())
    table = field.grid.table_gradient(unit, by_encoded)
    assert others[names.index("grid.table")] is None, "is left to the caller"
    assert torch.allclose(table, expected[names.index("grid.table")], rtol=1e-4, atol=1e-5 * float(table.abs().max()))

    monkeypatch.setattr(radiance_grid, "can_fuse", lambda x: False)
    assert grid.march(rays, torch.full((40,), 0.5), field, keep=True).places.known is None, "where torch has the layers"


def test_a_march_that_meets_nothing_knows_nothing() -> None:
    field = RadianceGrid(width=16, levels=3, log2_size=10, finest=32)
    packed = MarchingGrid(8, 300, False).march(some_rays(2.0, 4.0, count=0), torch.zeros(0), field, keep=True)
    assert packed.places.known is None and render_packed(packed, field, torch.ones(3)).rgb.shape == (0, 3)
