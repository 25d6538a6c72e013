"""What public functions take, and that their errors name the argument that the caller gave."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from sdfgan import cameras, fields, images, meshes, ops, raycast
from sdfgan.errors import UserError
from sdfgan.fields.function import as_field
from sdfgan.sdf import load, train
from sdfgan.sdf.config import SdfConfig
from sdfgan.volume.render_images import render_images

AXES = cameras.rotate_axes((0.3, 0.5))
BALL = fields.Sphere(0.5)
FAMILY = fields.FilmSirenSDF(width=16, latent_size=4, mapping_width=8)
LATENT = torch.zeros(1, 4)
RAY = raycast.Rays(
    torch.zeros(1).long(),
    torch.tensor([[0, 0, 3.0]]),
    torch.tensor([[0, 0, -1.0]]),
    torch.zeros(1),
    torch.full((1,), 6.0),
)
WRONG = (LATENT.double(), torch.zeros(1, 5))


def render(**changes: Any) -> raycast.Rendering:
    return raycast.render(**{"sdf": BALL, "axes": AXES, "resolution": 8, **changes})


def march(**changes: Any) -> raycast.SurfaceSamples:
    return raycast.multiscale(**{"sdf": BALL, "axes": AXES, "scales": (8,), "latents": None, **changes})


def both(**changes: Any) -> list[Callable[[], Any]]:
    return [lambda: render(**changes), lambda: march(**changes)]


@pytest.mark.parametrize(
    "angles",
    [
        (0.3, 0.5),
        (np.float64(0.3), np.float32(0.5)),
        ([0.3], [0.5]),
        (np.array([0.3]), 0.5),
        (torch.tensor([0.3]), 0.5),
        (0.3, torch.tensor([0.5])),
    ],
)
def test_angles_may_be_numbers(angles: Any) -> None:
    axes = cameras.rotate_axes(angles)
    assert axes.shape == (1, 3, 3) and axes.dtype == torch.float32
    z = (math.cos(0.3) * math.sin(0.5), math.sin(0.3), math.cos(0.3) * math.cos(0.5))
    assert axes[0, 2].tolist() == pytest.approx(z)
    assert (render(axes=axes).rgb == render().rgb).all()


def test_fields_may_be_asked_at_numbers() -> None:
    for points in ([[0, 0, 0], [1, 0, 0]], np.eye(3)[:2] * [[0], [1]], torch.tensor([[0, 0, 0], [0, 1, 0]])):
        assert BALL(points).tolist() == [-0.5, 0.5]
    traced = raycast.sphere_trace(lambda p: p.norm(dim=-1) - 0.5, None, RAY, ops.MarchRules(1e-4))
    assert traced.hit.all() and traced.t.item() == pytest.approx(2.5, abs=1e-3)


def test_one_number_goes_with_many_angles() -> None:
    axes = cameras.rotate_axes((0.25, [0.0, 1.0, 2.0]))
    assert axes.shape == (3, 3, 3)
    assert (axes == cameras.rotate_axes((torch.full((3,), 0.25), torch.arange(3.0)))).all()
    assert cameras.rotate_axes((torch.tensor(0.1), torch.tensor(0.2))).shape == (3, 3)


def test_places_may_be_numbers() -> None:
    there = cameras.look_at((0, 1, 4), target=[0, 1, 0])
    assert there[:, 2].tolist() == [0, 0, 1] and there[:, 3].tolist() == [0, 1, 4]
    assert (cameras.from_blender(np.eye(4)) == cameras.from_blender(torch.eye(4))).all()


CASES = [
    (lambda: cameras.rotate_axes((torch.zeros(2), torch.zeros(3))), "must be equally many, got [2] and [3]"),
    (lambda: cameras.rotate_axes(("north", 0.5)), "rotate_axes: elevation must be numbers or a Tensor, got 'north'"),
    (lambda: cameras.rotate_axes(0.3), "rotate_axes: angles must be a pair"),
    (lambda: cameras.look_at((0, 1)), "look_at: position must be [..., 3], got [2]"),
    (lambda: cameras.look_at(torch.ones(3), up="y"), "look_at: up must be numbers or a Tensor, got 'y'"),
    (lambda: cameras.orbit_camera(torch.zeros(3, 4)), "orbit_camera: axes must be [..., 3, 3], got [3, 4]"),
    (lambda: cameras.ray_grid(AXES, 8.0), "ray_grid: height must be a whole number, got 8.0"),
    (lambda: cameras.ray_grid(AXES, 8, fov=25), "ray_grid: fov must be in (0, pi) radians, got 25"),
    (lambda: cameras.pixel_rays(AXES[0], torch.zeros(1).long(), 8), "pixel_rays: camera must be [B, 3, 4] or axes"),
    (lambda: cameras.orbit_path(-1), "orbit_path: frames must be at least 0, got -1"),
    (lambda: cameras.vertical_fov(0.4, 0), "vertical_fov: aspect must be positive, got 0"),
    (lambda: cameras.pose_distribution("uniform", 0.3, (0, 1)), "elevation range must be (low, high)"),  # type: ignore[arg-type]
    *((call, "axes must be [B, 3, 3], got [3, 3]") for call in both(axes=AXES[0])),
    *((call, "axes must be [B, 3, 3], got [1, 3, 4]") for call in both(axes=cameras.orbit_camera(AXES))),
    *((call, "axes must be float32 or float64, got int64") for call in both(axes=torch.eye(3).long()[None])),
    *((call, "axes must be a Tensor [B, 3, 3] (see cameras.rotate_axes), got tuple") for call in both(axes=(0.3, 0.5))),
    *((call, "fov must be in (0, pi) radians, got 25") for call in both(fov=25)),
    *((call, "latents must be [1, L], got [2, 4]")
      for call in both(sdf=FAMILY, latents=torch.zeros(2, 4))),
    *((call, "latents must be [1, L], got [4]") for call in both(sdf=FAMILY, latents=LATENT[0])),
    *((call, "latents must be [2, L], got [1, 4]")
      for call in both(sdf=FAMILY, latents=LATENT, axes=AXES.expand(2, 3, 3))),
    *((call, "latents must be a Tensor [1, L], got ndarray") for call in both(sdf=FAMILY, latents=LATENT.numpy())),
    *((call, "latents must be [B, 4], got None") for call in both(sdf=FAMILY)),
    *((call, "latents must be [B, 4], got [1, 5]") for call in both(sdf=FAMILY, latents=WRONG[1])),
    *((call, "must be float32, as the weights are, got float64") for call in both(sdf=FAMILY, latents=WRONG[0])),
    *((call, "axes must be float32, as the field's weights are, got float64")
      for call in both(sdf=FAMILY, latents=LATENT, axes=AXES.double())),
    *((call, "precision must be 'fp32', 'bf16', 'fp16' or None, got 'half'") for call in both(precision="half")),
    *((call, "sdf must be a Field or a function of points, got int") for call in both(sdf=3)),
    (lambda: render(resolution=8.0), "render: resolution must be a whole number, got 8.0"),
    (lambda: render(supersample=2.5), "render: supersample must be a whole number, got 2.5"),
    (lambda: render(steps=0), "render: steps must be at least 1, got 0"),
    (lambda: render(background=(1, 1)), "render: background must be [3] or [1, 3], got [2]"),
    (lambda: render(background=torch.ones(2, 3)), "render: background must be [3] or [1, 3], got [2, 3]"),
    (lambda: render(background="white"), "render: background must be numbers or a Tensor, got 'white'"),
    (lambda: render(light=(0, 0, 0)), "render: light must not be zero, got (0, 0, 0)"),
    (lambda: render(light="sun"), "render: light must be numbers or a Tensor, got 'sun'"),
    (lambda: raycast.evaluate(BALL, torch.zeros(4, 2), None), "evaluate: points must be [..., 3], got [4, 2]"),
    (lambda: render_images(fields.PiGanField(latent_size=4, width=8), AXES[0]), "axes must be [B, 3, 3]"),
    (lambda: BALL(torch.zeros(4, 2)), "points must be [..., 3], got [4, 2]"),
    (lambda: FAMILY(torch.zeros(4, 5, 3), torch.zeros(2, 4)), "latents must be [1, L], or [B, L] for points"),
    (lambda: march(scales=8), "multiscale: scales must be a sequence, such as (8, 4), got 8"),
    (lambda: march(margin=-1), "multiscale: margin must not be negative, got -1"),
    (lambda: march(lipschitz="steep"), "lipschitz must be a number, got 'steep'"),
    (lambda: render(extent="far"), "extent must be a number, got 'far'"),
    (lambda: render(lipschitz=torch.tensor(2.0)), "lipschitz must be a number, got Tensor"),
    (lambda: render(background=None), "render: background must be numbers or a Tensor, got NoneType"),
    (lambda: cameras.rotate_axes((0.2, None)), "must be numbers or a Tensor, got NoneType"),
    (lambda: cameras.look_at([0, None, 1]), "must be numbers or a Tensor, got list"),
    (lambda: raycast.Lighting(direction=(math.nan, 0, 0)), "Lighting: direction must be finite, got (nan, 0, 0)"),
    (lambda: render(fov="wide"), "render: fov must be a number, got 'wide'"),
    (lambda: render(pixels=[1]), "render: pixels must be a Tensor [1, 8, 8] bool, got list"),
    (lambda: raycast.Lighting(ambient="red"), "Lighting: ambient must be a number, got 'red'"),
    (lambda: raycast.Lighting.random(AXES[0]), "Lighting.random: axes must be [B, 3, 3]"),
    (lambda: raycast.sphere_trace(BALL, None, (1, 2), None), "sphere_trace: rays must be Rays, got tuple"),
    (lambda: raycast.sphere_trace(BALL, None, RAY, None), "sphere_trace: rules must be ops.MarchRules, got NoneType"),
    (lambda: raycast.sphere_trace(BALL, None, dataclasses.replace(RAY, far=RAY.far.double()), ops.MarchRules(1e-4)),
     "rays.far must be [1] float32, got [1] float64"),
    (lambda: cameras.Uniform(0.3, (0, 1)), "Uniform: elevation must be (low, high), low <= high, got 0.3"),
    (lambda: cameras.Gaussian((0, 1), (0, 1)).sample(2.5), "sample: n must be a whole number, got 2.5"),
    (lambda: fields.Sphere(math.nan), "Sphere: radius must be finite, got nan"),
    (lambda: BALL.translated((0, math.inf, 0)), "Transformed: translation must be finite"),
    (lambda: BALL.rotated(axis=(0, 1, 0), angle="90"), "angle must be numbers or a Tensor, got '90'"),
    (lambda: fields.FilmSirenSDF(width=16.5), "FilmSirenSDF: width must be a whole number, got 16.5"),
    (lambda: fields.MlpSDF(width=0), "MlpSDF: width must be at least 1, got 0"),
    (lambda: fields.DfrSDF(latent_size=0), "DfrSDF: latent_size must be at least 1, got 0"),
    (lambda: fields.PiGanField(layers=0), "PiGanField: layers must be at least 1, got 0"),
    (lambda: fields.HashGrid(features=0), "HashGrid: features must be at least 1, got 0"),
    (lambda: fields.PositionalEncoding(-1), "PositionalEncoding: octaves must be at least 0, got -1"),
    (lambda: fields.Perceptron(3, 8), "Perceptron: widths must be a sequence, one for each hidden layer, got 8"),
    (lambda: fields.FixedLatent(BALL), "FixedLatent: family must be a FilmSirenSDF, got Sphere"),
    (lambda: images.VideoWriter("a.gif", fps=0), "VideoWriter: fps must be positive, got 0"),
    (lambda: fields.Sphere("big"), "Sphere: radius must be numbers or a Tensor, got 'big'"),
    (lambda: BALL.coloured((255, 0, 0)), "Coloured: colour must be at most 1.0, got 255.0"),
    (lambda: BALL.rotated(axis=(0, 0, 0), angle=1.0), "axis must not be zero, got (0, 0, 0)"),
    (lambda: BALL.rotated(axis=(0, 1), angle=1.0), "axis must be [3] or [B, 3], got [2]"),
    (lambda: BALL | 3, "Union: b must be a Field, got int"),
    (lambda: BALL - (lambda points: points), "Subtraction: b must be a Field, got function"),
    (lambda: fields.Coloured(None, (1, 1, 1)), "Coloured: field must be a Field, got NoneType"),
    (lambda: meshes.marching_cubes(FAMILY, resolution=8), "marching_cubes: condition must be given"),
    (lambda: meshes.marching_cubes(FAMILY, FAMILY.condition(torch.zeros(2, 4)), 8), "must be that of one shape, got 2"),
    (lambda: meshes.marching_cubes(lambda points: points, resolution=8), "field must be a Field, got function"),
    (lambda: meshes.sample_grid(BALL, resolution=8.5), "sample_grid: resolution must be a whole number, got 8.5"),
    (lambda: images.save_image("a.png", torch.zeros(2, 3, 8, 8)), "image must be a Tensor [C, H, W], got [2, 3"),
    (lambda: images.save_image("a.png", torch.zeros(8, 8)), "image must be a Tensor [C, H, W], got [8, 8]"),
    (lambda: images.save_image("a.png", torch.zeros(8, 8, 3)), "image must be [1, 3 or 4, H, W], got [8, 8, 3]"),
    (lambda: images.save_image("a.png", np.zeros((3, 8, 8))), "image must be a Tensor [C, H, W], got ndarray"),
    (lambda: images.image_grid(torch.zeros(3, 8, 8), 2), "image_grid: images must be [N, C, H, W], got [3, 8, 8]"),
    (lambda: images.image_grid(torch.zeros(1, 3, 8, 8), 0), "image_grid: columns must be at least 1, got 0"),
    (lambda: images.colour_depth(torch.zeros(1, 8, 8)), "colour_depth: depth must be [B, 1, H, W], got [1, 8, 8]"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), CASES)
def test_errors_name_what_was_given(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError, UserError)) as raised:
        call()
    assert message in str(raised.value)
    for internal in ("start_level", "film_siren_trace", "sparse_coo", "generate_rays"):
        assert internal not in str(raised.value)


@pytest.mark.parametrize("name", ["a", "a.xyz", "a.txt"])
def test_a_suffix_that_is_no_pictures(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: the suffix must be that of an image"):
        images.save_image(tmp_path / name, torch.zeros(3, 4, 4))
    assert not list(tmp_path.iterdir())


def test_a_field_may_be_asked_at_points_of_any_shape(tmp_path: Path) -> None:
    """Analytic ones, a function, a family and what train-sdf makes, alike."""
    trimesh.creation.icosphere(1).export(tmp_path / "ball.stl")
    small = {
        "num_points": 1000,
        "epochs": 1,
        "mesh_resolution": 8,
        "log2_size": 8,
        "metrics": False,
        "device": "cpu",
    }
    train(SdfConfig(input=tmp_path / "ball.stl", output_dir=tmp_path / "run", **small))
    points = torch.rand(4, 5, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    several = (
        BALL | fields.Box((0.2, 0.3, 0.1)),
        load(tmp_path / "run"),
        fields.MlpSDF(latent_size=4, width=8),
        FAMILY,
    )
    for field in (*several, as_field(lambda p: p.norm(dim=-1) - 0.5)):
        latents = LATENT if field.latent_size else None
        flat = field(points.view(-1, 3), latents)
        assert flat.shape == (20,) and torch.equal(field(points, latents), flat.view(4, 5))
        assert field(points[0, 0], latents).shape == () and field(points[:0], latents).shape == (0, 5)
        answer = raycast.evaluate(field, points, field.condition(latents))
        assert answer.sdf.shape == (4, 5) and answer.gradient.shape == answer.rgb.shape == (4, 5, 3)
    latents = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    one_by_one = torch.stack([FAMILY(points[i], latents[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(FAMILY(points, latents), one_by_one)
