"""Light, background and parts of pictures."""

from __future__ import annotations

import pytest
import torch

from sdfgan import cameras, fields
from sdfgan.raycast import Lighting, render

FRONT = cameras.rotate_axes((torch.zeros(1), torch.zeros(1)))
WHITE = fields.Sphere(0.5).coloured((1.0, 1.0, 1.0))


def middle(light: Lighting, **arguments: object) -> float:
    return render(sdf=WHITE, axes=FRONT, resolution=33, light=light, **arguments).rgb[0, 0, 16, 16].item()  # type: ignore[arg-type]


def test_lights_add_up() -> None:
    assert middle(Lighting(0.3, 0.0, 0.0)) == pytest.approx(0.3, abs=1e-4)
    assert middle(Lighting(0.1, 0.5, 0.0)) == pytest.approx(0.6, abs=1e-3)
    assert middle(Lighting(0.1, 0.5, 0.2, (0.0, 0.0, 3.0))) == pytest.approx(0.8, abs=1e-3)
    assert middle(Lighting(0.0, 0.0, 1.0, (0.0, 1.0, 0.0))) == pytest.approx(0.5, abs=0.02)
    assert middle(Lighting(0.0, 0.0, 1.0, (0.0, 1.0, 0.0), wrap=0.0)) == pytest.approx(0.0, abs=0.02)
    assert middle(Lighting(0.2, 0.0, 1.0, (0.0, 0.0, -1.0), wrap=0.0)) == pytest.approx(0.2, abs=1e-3)


def test_light_and_background_are_differentiable() -> None:
    direction = torch.tensor([0.2, 0.5, 0.6], dtype=torch.float64)
    behind = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    strength = torch.tensor(0.7, dtype=torch.float64)
    inputs = [tensor.requires_grad_() for tensor in (direction, behind, strength)]

    def picture(*values: torch.Tensor) -> torch.Tensor:
        light = Lighting(0.1, 0.2, values[2], values[0])
        made = render(sdf=WHITE, axes=FRONT.double(), resolution=6, light=light, background=values[1])
        return made.rgb

    assert torch.autograd.gradcheck(picture, inputs)


def test_random_lights_come_from_the_viewers_side() -> None:
    axes = cameras.rotate_axes((torch.linspace(-1, 1, 50), torch.linspace(0, 6, 50)))
    light = Lighting.random(axes, torch.Generator().manual_seed(0))
    direction = torch.as_tensor(light.direction)
    assert torch.allclose(direction.norm(dim=-1), torch.ones(50), atol=1e-5)
    assert ((direction * axes[:, 2]).sum(-1) >= 0.29).all() and direction.std(0).min() > 0.3
    again = Lighting.random(axes, torch.Generator().manual_seed(0))
    assert torch.equal(direction, torch.as_tensor(again.direction))
    assert render(sdf=WHITE, axes=axes[:2], resolution=8, light=Lighting.random(axes[:2])).rgb.isfinite().all()


def test_some_pixels_are_rendered_alone() -> None:
    chosen = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0)) < 0.3
    whole = render(sdf=WHITE, axes=FRONT, resolution=32)
    some = render(sdf=WHITE, axes=FRONT, resolution=32, pixels=chosen)
    assert torch.equal(some.rgba, whole.rgba * chosen[:, None]) and len(some.field.sdf) < 0.5 * len(whole.field.sdf)


def test_density_shares_the_inside_alone() -> None:
    whole = render(sdf=WHITE, axes=FRONT, resolution=64)
    shared = render(sdf=WHITE, axes=FRONT, resolution=64, density=4)
    assert torch.equal(shared.alpha, whole.alpha) and torch.equal(shared.hit, whole.hit)
    assert len(shared.field.sdf) < 0.6 * len(whole.field.sdf)
    edges = (whole.alpha > 0) & (whole.alpha < 1)
    torch.testing.assert_close(shared.rgb * edges, whole.rgb * edges)
    difference = (shared.rgb - whole.rgb).abs().max()
    assert 0 < difference < 0.1  # the grid


def test_bad_arguments_are_named() -> None:
    def refuse(message: str, **arguments: object) -> None:
        with pytest.raises(ValueError, match=message):
            render(sdf=WHITE, axes=FRONT, resolution=8, **arguments)  # type: ignore[arg-type]

    refuse("light.fixed must be", light=Lighting(fixed=torch.zeros(3)))
    refuse("light.wrap must not be negative", light=Lighting(wrap=-1.0))
    refuse("edge must be 'exact', 'neighbour' or 'dfr', got 'soft'", edge="soft")
    refuse("layers must be at least 1, got 0", layers=0)
    refuse(r"pixels must be \[1, 8, 8\] bool", pixels=torch.zeros(1, 8, 8))
    refuse("density must be at least 1 and divide the resolution, got 3", density=3)
    refuse("extent must be positive", extent=0.0)
