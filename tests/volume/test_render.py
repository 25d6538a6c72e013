"""sdfgan.volume.render: against the raycaster and closed forms, and that all ways of rendering agree."""

from __future__ import annotations

import math

import pytest
import torch

from sdfgan import cameras, fields, raycast, volume
from sdfgan.fields import FilmSirenSDF
from sdfgan.volume import OccupancyGrid, Radiance, Rays, RaySamples, Sampling, SdfVolume

R = 24
DISTANCE = cameras.camera_distance()


def some_axes() -> torch.Tensor:
    return cameras.rotate_axes((torch.tensor([0.3]), torch.tensor([0.7])))


def some_rays(**more: torch.Tensor) -> Rays:
    origins, directions = (part.reshape(-1, 3) for part in cameras.ray_grid(some_axes(), R))
    near = torch.full((R * R,), DISTANCE - 1.2)
    return Rays(origins.contiguous(), directions, near, near + 2.4, **more)


class Fog:
    """Density 2 in the unit ball, coloured by position."""

    def density(self, places: RaySamples, condition=None) -> torch.Tensor:
        return 2.0 * (places.points.norm(dim=1) < 1)

    def radiance(self, places: RaySamples, condition=None) -> Radiance:
        assert places.directions.shape == places.points.shape
        return Radiance(self.density(places), places.points.sigmoid(), None, places.points)


def siren() -> FilmSirenSDF:
    torch.manual_seed(0)
    field = FilmSirenSDF(width=16, latent_size=4)
    with torch.no_grad():
        field.sdf_head *= 20  # no plain ball
    return field


SURFACES = {"box": lambda: fields.Box((0.5, 0.3, 0.4)), "sphere": lambda: fields.Sphere(0.6), "siren": siren}


@pytest.mark.parametrize("density", ["laplace", "logistic"])
@pytest.mark.parametrize("surface", SURFACES)
def test_a_distance_field_looks_like_its_surface(surface, density):
    field = SURFACES[surface]()
    latents = torch.ones(1, 4) if surface == "siren" else None
    condition = field.condition(latents)
    with torch.no_grad():
        expected = raycast.render(sdf=field, axes=some_axes(), resolution=R, condition=condition)
        made = volume.render(
            SdfVolume(field, 0.002, density), some_rays(), condition=condition, sampling=Sampling((96, 64), merge=True)
        )
    alpha, depth = made.opacity.view(R, R), made.depth.view(R, R)
    hit = expected.hit[0, 0]
    assert ((alpha > 0.5) != hit).sum() <= 4  # grazing rays
    both = (alpha > 0.99) & hit
    assert both.sum() > 80
    difference = (depth - expected.depth[0, 0])[both].abs()
    assert difference.median() < 0.006 and difference.max() < 0.05
    normals = (made.normals.view(R, R, 3) * expected.normals[0].permute(1, 2, 0)).sum(-1)[both]
    assert normals.median() > 0.999
    middle = (
        made.rgb.view(R, R, 3)[both]
        - field.evaluate(
            (some_rays().origins + made.depth[:, None] * some_rays().directions)[both.flatten()], condition
        ).rgb
    )
    assert middle.abs().median() < 0.02


@pytest.mark.parametrize("sampling", [Sampling((200,)), Sampling((60, 60)), Sampling((40, 80), merge=True, blur=True)])
def test_a_ball_of_fog_is_as_opaque_as_its_chords_are_long(sampling):
    made = volume.render(Fog(), some_rays(), sampling=sampling, background=(1.0, 0.0, 0.0))
    rays = some_rays()
    closest = (rays.origins + (-(rays.origins * rays.directions).sum(1))[:, None] * rays.directions).norm(dim=1)
    chord = 2 * (1 - closest.square()).clamp(min=0).sqrt()
    assert (made.opacity - (1 - (-2 * chord).exp())).abs().max() < 0.06
    empty = closest > 1.01
    assert (
        empty.any()
        and made.depth[empty].isinf().all()
        and torch.equal(made.rgb[empty, 0], torch.ones(int(empty.sum())))
    )


def test_stratified_samples_average_to_the_picture():
    exact = volume.render(Fog(), some_rays(), sampling=Sampling((300,))).rgb
    random = torch.Generator().manual_seed(0)
    sampling = Sampling((8, 8), stratified=True, merge=True)
    average = sum(volume.render(Fog(), some_rays(), sampling=sampling, generator=random).rgb for _ in range(30)) / 30
    assert (average - exact).abs().mean() < 0.01


def test_backgrounds():
    rays, sampling = some_rays(), Sampling((50,))
    black = volume.render(Fog(), rays, sampling=sampling)
    per_ray = torch.rand(R * R, 3)
    over = volume.render(Fog(), rays, sampling=sampling, background=per_ray)
    torch.testing.assert_close(over.rgb, black.rgb + (1 - black.opacity[:, None]) * per_ray)
    last = volume.render(Fog(), rays, sampling=sampling, background="last")
    assert (last.opacity == 1).all()
    torch.testing.assert_close(
        last.rgb, black.rgb + (1 - black.opacity[:, None]) * last.samples.rgb.view(R * R, 50, 3)[:, -1]
    )


def test_proposals_place_the_samples():
    """A thin shell, found by a broad one: and only the histograms of proposals carry a gradient to them."""
    beta = torch.tensor(0.1, requires_grad=True)
    sphere = fields.Sphere(0.6)
    proposal = SdfVolume(sphere, beta)
    final = SdfVolume(sphere, torch.tensor(0.005, requires_grad=True))  # or the picture would have no graph at all
    made = volume.render(final, some_rays(), sampling=Sampling((32, 32)), proposals=[proposal])
    middle = made.levels[1].edges.view(R, R, -1)[R // 2, R // 2]
    inside = ((middle > DISTANCE - 0.9) & (middle < DISTANCE - 0.3)).float().mean()
    assert inside > 0.6 and made.levels[0].rgb is None
    assert torch.autograd.grad(made.rgb.sum(), beta, allow_unused=True, retain_graph=True)[0] is None
    assert torch.autograd.grad(made.levels[0].weights.square().sum(), beta)[0] != 0
    pictured = volume.render(
        SdfVolume(sphere, 0.005), some_rays(), sampling=Sampling((32, 32), images=True), proposals=[proposal]
    )
    assert torch.autograd.grad(pictured.levels[0].rgb.square().sum(), beta)[0] != 0


def test_cones_ask_for_gaussians_of_the_right_size():
    asked = []

    class Recorder(Fog):
        def radiance(self, places, condition=None):
            asked.append(places)
            return super().radiance(places)

    rays = some_rays(radii=torch.full((R * R,), 0.01))
    for full in (False, True):
        volume.render(Recorder(), rays, sampling=Sampling((16,)), cones="cone", full_covariance=full)
    diagonal, matrix = asked[0].covariances, asked[1].covariances
    torch.testing.assert_close(matrix.diagonal(dim1=1, dim2=2), diagonal)
    across = 0.01**2 * DISTANCE**2 / 4  # variance of a disc of that radius
    assert torch.linalg.eigvalsh(matrix.double())[:, 0].median().item() == pytest.approx(across, rel=0.2)


@pytest.mark.parametrize("merge", [False, True])
def test_no_rays(merge):
    rays = some_rays()
    none = Rays(*(None if part is None else part[:0] for part in rays))
    seen = volume.render(SdfVolume(fields.Sphere(0.5)), none, sampling=Sampling((8, 8), merge=merge))
    assert seen.rgb.shape == (0, 3) and seen.levels[-1].weights.shape == (0, 16 if merge else 8)


def test_an_occupancy_grid_leaves_out_what_is_empty():
    grid = OccupancyGrid(24, threshold=0.1)
    assert grid.occupied.all()
    box = SdfVolume(fields.Box((0.5, 0.3, 0.4)), 0.01)
    random = torch.Generator().manual_seed(0)
    for _ in range(8):
        grid.update(lambda points: box.density(RaySamples(points, points)), random)
    share = grid.occupied.float().mean()
    assert 0.06 < share < 0.3  # the box fills 0.06 of the cube
    assert not grid(torch.tensor([[0.9, 0.9, 0.9], [2.0, 0, 0], [torch.nan, 0, 0]])).any() and grid(torch.zeros(3))
    options = {"sampling": Sampling((128,)), "background": (1.0, 1.0, 1.0)}
    whole, sparse = (volume.render(box, some_rays(), occupancy=g, **options) for g in (None, grid))
    assert len(sparse.places.points) < 0.5 * len(whole.places.points)
    for ours, theirs in ((whole.opacity, sparse.opacity), (whole.rgb, sparse.rgb)):
        assert (ours - theirs).abs().mean() < 0.003 and (ours - theirs).abs().max() < 0.1  # rays that graze
    both = whole.opacity > 0.5
    assert (whole.depth - sparse.depth)[both].abs().max() < 0.03
    torch.testing.assert_close(sparse.levels[0].weights.sum(1), sparse.opacity)


def test_pieces_give_the_same_picture_and_gradient():
    colour = torch.tensor([0.2, 0.5, 0.9], requires_grad=True)

    class Coloured(Fog):
        def radiance(self, places, condition=None):
            return Radiance(2 * (places.points.norm(dim=1) - colour[0]).sigmoid(), places.points.sigmoid() * colour)

    results = []
    for at_once in (None, 100):
        made = volume.render(Coloured(), some_rays(), sampling=Sampling((16, 16)), rays_at_once=at_once)
        (gradient,) = torch.autograd.grad(made.rgb.square().sum() + made.levels[0].weights.square().sum(), colour)
        results.append((made.rgb, made.depth, made.levels[-1].weights, gradient))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)
    random = [torch.Generator().manual_seed(1) for _ in range(2)]
    sampling = Sampling((8,), stratified=True)
    first, second = (
        volume.render(Coloured(), some_rays(), sampling=sampling, rays_at_once=100, generator=g).rgb for g in random
    )
    assert torch.equal(first, second)


def test_contraction():
    points = torch.randn(50, 3, dtype=torch.float64) * 3
    inside = points.norm(dim=1) < 1
    contracted = volume.contract(points)
    assert torch.equal(contracted[inside], points[inside]) and contracted.norm(dim=1).max() < 2
    torch.testing.assert_close(volume.expand(contracted), points)
    covariance = torch.diag_embed(torch.rand_like(points))
    means, covariances = volume.contract_gaussians(points, covariance)
    torch.testing.assert_close(means, contracted)
    for index in (0, 7):
        jacobian = torch.autograd.functional.jacobian(volume.contract, points[index])
        torch.testing.assert_close(covariances[index], jacobian @ covariance[index] @ jacobian.T)


def test_disparity_reaches_far():
    rays = some_rays()._replace(near=torch.full((R * R,), 0.1), far=torch.full((R * R,), 1000.0))
    made = volume.render(Fog(), rays, sampling=Sampling((64,), spacing="disparity"))
    edges = made.levels[0].edges[0]
    assert edges[0].item() == pytest.approx(0.1) and edges[-1].item() == pytest.approx(1000, rel=1e-3)
    assert math.isclose(edges[32].item(), 2 / (1 / 0.1 + 1 / 1000), rel_tol=0.05)


def test_rejections():
    with pytest.raises(
        ValueError, match=r"render: proposals must be none or 1, one for each level but the last, got 2"
    ):
        volume.render(Fog(), some_rays(), proposals=[Fog(), Fog()])
    with pytest.raises(ValueError, match=r"render: cones are 'cone', so rays must have radii, got None"):
        volume.render(Fog(), some_rays(), cones="cone")
    with pytest.raises(ValueError, match=r"render: with an occupancy grid sampling must have one level"):
        volume.render(Fog(), some_rays(), occupancy=OccupancyGrid(4))
    with pytest.raises(ValueError, match=r"Sampling: counts must be positive, at least one, got \(\)"):
        Sampling(())
    with pytest.raises(ValueError, match="SdfVolume: density must be 'laplace' or 'logistic', got 'step'"):
        SdfVolume(fields.Sphere(0.5), density="step")
