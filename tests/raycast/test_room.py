"""Images whose samples have room beforehand: the same as those whose samples are counted first."""

from __future__ import annotations

import pytest
import torch

from host_waits import HostWaits
from sdfgan import cameras, fields, raycast
from sdfgan.raycast import room as rooms

AXES = cameras.rotate_axes((torch.tensor([0.3, 1.2, 2.5]), torch.tensor([0.2, -0.4, 0.9])))
PARTS = ("rgb", "alpha", "normals", "hit", "depth")


def rendered(size: torch.Tensor, room: raycast.Room | None, edge: str = "exact") -> raycast.Rendering:
    def sdf(points: torch.Tensor) -> torch.Tensor:
        q = points.abs() - torch.stack([size, size / 2, size / 3])
        box = (q.clamp(min=0).square().sum(-1) + 1e-12).sqrt() + q.amax(-1).clamp(max=0)
        return torch.minimum(box, (points - 0.4 * size).norm(dim=-1) - size / 4)

    return raycast.render(sdf=sdf, axes=AXES, resolution=48, room=room, edge=edge, memory="unbounded")


@pytest.mark.parametrize("edge", ["exact", "neighbour"])
def test_same_images_and_gradients(edge: str) -> None:
    room = raycast.Room()
    for value in (0.6, 0.5, 0.62, 0.01):
        sizes = [torch.tensor(value, requires_grad=True) for _ in range(2)]
        with HostWaits() as seen:
            made = rendered(sizes[0], room, edge)
        expected = rendered(sizes[1], None, edge)
        assert (value == 0.6) == bool(seen.waits), seen.waits
        assert room.settle() == 0
        for name in PARTS:
            torch.testing.assert_close(getattr(made, name), getattr(expected, name), rtol=1e-6, atol=1e-6)
        losses = []
        for image in (made, expected):
            weights = torch.linspace(0, 1, image.rgba.numel()).view_as(image.rgba)
            eikonal = fields.eikonal_loss(image.field.gradient, image.valid)
            loss = (image.rgba * weights).sum() + image.normals.square().sum() + eikonal
            losses.append(loss.detach())
            loss.backward()
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(sizes[0].grad, sizes[1].grad, rtol=1e-4, atol=1e-4)
        assert made.valid is not None and made.valid.sum() == len(expected.field.sdf) < len(made.valid)
    assert room.lost == 0


def test_a_gradient_waits_for_nothing() -> None:
    room, size = raycast.Room(), torch.tensor(0.6, requires_grad=True)

    def step() -> None:
        made = rendered(size, room)
        (made.rgba.sum() + fields.eikonal_loss(made.field.gradient, made.valid)).backward()

    step()
    with HostWaits() as seen:
        step()
    assert not seen.waits and not seen.uploads


def test_a_graph_in_pieces() -> None:
    room, gradients = raycast.Room(), []
    for memory, own in (("bounded", room), ("bounded", room), ("unbounded", None)):
        size = torch.tensor(0.6, requires_grad=True)
        made = raycast.render(
            sdf=lambda p, s=size: (p / s).norm(dim=-1) * 0.5 - 0.5, axes=AXES, resolution=48, memory=memory,
            room=own, budget=300_000,
        )  # fmt: skip
        (made.rgba.square().sum() + fields.eikonal_loss(made.field.gradient, made.valid)).backward()
        gradients.append(size.grad)
    torch.testing.assert_close(gradients[0], gradients[2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradients[1], gradients[2], rtol=1e-4, atol=1e-4)


def test_what_finds_no_room_is_counted_and_then_has_room() -> None:
    """The first images are whole, whatever is missing of the last."""
    room = raycast.Room()
    rendered(torch.tensor(0.4), room)
    room.settle()
    large = torch.tensor(0.62)
    cut, whole = rendered(large, room), rendered(large, None)
    torch.testing.assert_close(cut.rgb[0], whole.rgb[0])
    assert not torch.allclose(cut.rgb[2], whole.rgb[2]) and cut.rgb.isfinite().all()
    lost = room.settle()
    assert lost > 0 and room.lost == lost
    torch.testing.assert_close(rendered(large, room).rgb, whole.rgb)
    assert room.settle() == 0 and room.lost == lost


def test_nothing_to_see() -> None:
    """Not even samples to repeat: black images, and gradients of 0."""
    room = raycast.Room()
    for _ in range(2):
        radius = torch.tensor(0.3, requires_grad=True)
        far = raycast.render(sdf=lambda p, r=radius: (p - 3).norm(dim=-1) - r, axes=AXES, resolution=16, room=room)
        assert not far.rgba.any() and far.depth.isinf().all()
        assert fields.eikonal_loss(far.field.gradient, far.valid) == 0
        (far.rgba.sum() + far.normals.sum()).backward()
        assert radius.grad is None or radius.grad == 0


def test_a_network() -> None:
    """Natively traced and evaluated."""
    torch.manual_seed(0)
    field, room = fields.FilmSirenSDF(latent_size=4, width=32), raycast.Room()
    latents = torch.randn(3, 4)
    for _ in range(2):
        gradients = []
        for own in (room, None):
            made = raycast.render(sdf=field, axes=AXES, latents=latents, resolution=32, room=own)
            eikonal = fields.eikonal_loss(made.field.gradient, made.valid)
            parameters = list(field.parameters())
            gradients.append(torch.autograd.grad(made.rgba.square().mean() + eikonal, parameters))
        for with_room, without in zip(*gradients, strict=True):
            torch.testing.assert_close(with_room, without, rtol=1e-4, atol=1e-6)
        room.settle()


def test_less_room_where_there_is_far_too_much() -> None:
    room = raycast.Room()
    counts = torch.tensor([4000])
    assert room.sizes(["creases"], counts) == [8192 - 8192 % 256]
    room.settle()
    assert room.sizes(["creases"], counts) == [5120]
    room.settle()
    assert room.sizes(["creases"], torch.tensor([3900])) == [5120]
    room.settle()
    room.sizes(["creases"], torch.tensor([100]))
    room.settle()
    assert room.sizes(["creases"], torch.tensor([100])) == [256]
    assert rooms.KINDS[-1] == "creases"


def test_other_settings_begin_anew() -> None:
    room = raycast.Room()
    assert room.settle() == 0
    room.keep_while(1)
    assert room.sizes(["creases"], torch.tensor([10])) == [256]
    room.keep_while(1)
    assert room.sizes(["creases"], torch.tensor([10_000])) == [256]
    room.keep_while(2)
    assert room.sizes(["creases"], torch.tensor([10_000])) == [20_224]
    assert room.settle() == 0


def test_places() -> None:
    chosen = torch.tensor([False, True, False, True, False])
    assert rooms.first_places(chosen, 1).tolist() == [1]
    assert rooms.first_places(chosen, 4).tolist() == [1, 3, 3, 3]
    assert rooms.first_places(torch.zeros(3, dtype=torch.bool), 2).tolist() == [0, 0]
    assert rooms.places(chosen, "layers", None)[0].tolist() == [1, 3]


@pytest.mark.parametrize("options", [{"edge": "dfr"}, {"density": 2}])
def test_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="room is for exact edges of density 1"):
        raycast.render(sdf=fields.Sphere(0.5), axes=AXES, resolution=16, room=raycast.Room(), **options)
