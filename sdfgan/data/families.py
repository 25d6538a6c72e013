"""Families of things that people recognise, made of analytic fields: aircraft, chairs and mugs of random proportions.

Every function gives `n` shapes as one coloured field with a row of parameters per shape, y upwards, and the radius [n]
of a ball around the origin that holds each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from sdfgan.fields import AnalyticField, Capsule, Cone, Cylinder, Ellipsoid, RoundedBox, SmoothUnion, Torus

Shapes = tuple[AnalyticField, Tensor]
_BALL = 0.97  # every shape fits into a ball of this radius
_PALE = torch.tensor([0.92, 0.93, 0.95])
_DARK = torch.tensor([0.12, 0.12, 0.14])
_WOOD = torch.tensor([[0.45, 0.27, 0.13], [0.62, 0.42, 0.23], [0.25, 0.15, 0.09]])


def uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """[n] in [low, high)."""
    return low + (high - low) * torch.rand(n, generator=generator)


def vivid(n: int, generator: torch.Generator) -> Tensor:
    """Linear RGB [n, 3] of random hue, saturation 0.45 to 1 and value 0.65 to 1."""
    hue = uniform(n, 0, 6, generator)
    saturation = uniform(n, 0.45, 1, generator)
    value = uniform(n, 0.65, 1, generator)
    k = (hue[:, None] + torch.tensor([5.0, 3.0, 1.0])) % 6
    return value[:, None] * (1 - saturation[:, None] * torch.minimum(k, 4 - k).clamp(0, 1))


def _xyz(*parts: Tensor | float) -> Tensor:
    """[n, 3] of components [n], or the same for all."""
    return torch.stack(torch.broadcast_tensors(*(torch.as_tensor(part) for part in parts)), -1)


def _either(n: int, colours: Tensor, generator: torch.Generator) -> Tensor:
    """[n, 3] of some colours [k, 3]."""
    return colours[torch.randint(len(colours), (n,), generator=generator)]


def _filling(field: AnalyticField, bound: Tensor, generator: torch.Generator) -> Shapes:
    """Scaled to a random radius a little below the ball's."""
    radius = uniform(len(bound), 0.88 * _BALL, _BALL, generator)
    return field.scaled(radius / bound), radius


# ----------------------------------------------------------------------------------------------------------- aircraft


def _along_z(field: AnalyticField) -> AnalyticField:
    """What is made along y, nose upwards, with the nose to +z."""
    return field.rotated(axis=(1.0, 0.0, 0.0), angle=math.pi / 2)


def _pair_of_wings(
    span: Tensor, chord: Tensor, thickness: float, sweep: Tensor, dihedral: Tensor, place: Tensor, colour: Tensor
) -> AnalyticField:
    """Two halves that meet in the middle, turned back by `sweep` and up by `dihedral`, radians."""
    halves = []
    for side in (1.0, -1.0):
        half = RoundedBox(_xyz(span / 2, thickness, chord / 2), thickness * 0.9).translated(
            _xyz(side * span / 2, 0.0, 0.0)
        )
        half = half.rotated(axis=(0.0, 0.0, 1.0), angle=side * dihedral)
        halves.append(half.rotated(axis=(0.0, 1.0, 0.0), angle=side * sweep))
    return (halves[0] | halves[1]).translated(place).coloured(colour)


def _aircraft(n: int, generator: torch.Generator, kind: str) -> Shapes:
    def random(low: float, high: float) -> Tensor:
        return uniform(n, low, high, generator)

    none = torch.zeros(n)
    livery, accent = vivid(n, generator), vivid(n, generator)
    pale = (torch.rand(n, 1, generator=generator) < 0.6).float()
    body = pale * _PALE + (1 - pale) * livery
    small = kind == "propeller"
    radius, half = (random(0.09, 0.12), random(0.36, 0.46)) if small else (random(0.07, 0.105), random(0.5, 0.62))
    tail = random(0.16, 0.26)
    fuselage = _along_z(Capsule(radius, half))
    cone = _along_z(Cone(0.02, radius * 0.97, tail)).translated(_xyz(none, radius * 0.35, -half - tail * 0.75))
    hull = SmoothUnion(fuselage, cone, 0.06).coloured(body)
    sweep = random(0.0, 0.06) if small else random(0.42, 0.62)
    wing_span, chord = (random(0.58, 0.75), random(0.15, 0.19)) if small else (random(0.62, 0.8), random(0.13, 0.18))
    lift = random(-0.3, 0.95) if small else random(-0.75, -0.35)
    wing_place = _xyz(none, lift * radius, random(0.02, 0.12) if small else random(0.1, 0.2))
    wing_colour = 0.75 * _PALE.expand(n, 3) if not small else body
    parts = [hull, _pair_of_wings(wing_span, chord, 0.018, sweep, random(0.03, 0.1), wing_place, wing_colour)]
    back = -half - tail * 1.05
    high = kind == "jet"  # a tailplane on top of the fin
    height = random(0.15, 0.2) if small else random(0.2, 0.27)
    lean = random(0.25, 0.4) if small else random(0.5, 0.65)
    fin = RoundedBox(_xyz(0.016, height / 2, chord * 0.42), 0.014).translated(_xyz(0.0, height / 2, 0.0))
    parts.append(
        fin.rotated(axis=(1.0, 0.0, 0.0), angle=-lean).translated(_xyz(none, radius * 0.7, back)).coloured(accent)
    )
    top = _xyz(none, radius * 0.7 + height * lean.cos() * 0.92, back - height * lean.sin() * 0.92)
    at_tail = top if high else _xyz(none, radius * 0.55, back)
    parts.append(_pair_of_wings(wing_span * 0.36, chord * 0.62, 0.014, 0.9 * sweep, none, at_tail, wing_colour))
    if small:
        spinner = _along_z(Cone(0.05, 0.015, 0.05)).translated(_xyz(none, 0.0, half + radius * 0.95))
        blades = _along_z(Cylinder(random(0.19, 0.25), torch.full((n,), 0.012))).translated(
            _xyz(none, 0.0, half + radius)
        )
        window = Ellipsoid(_xyz(radius * 0.75, radius * 0.75, radius * 1.6)).translated(_xyz(none, radius * 0.62, 0.12))
        parts += [(spinner | blades).coloured(_DARK.expand(n, 3)), window.coloured(2.2 * _DARK.expand(n, 3))]
    else:
        size, length = random(0.035, 0.05), random(0.06, 0.09)
        engine = _along_z(Capsule(size, length))
        if high:
            beside = [_xyz(side * (radius + size), radius * 0.3, -half * 0.82) for side in (1.0, -1.0)]
        else:
            out = 0.36 * wing_span
            ahead = wing_place[:, 2] + chord / 2 - out * sweep.sin()
            beside = [_xyz(side * out * sweep.cos(), wing_place[:, 1] - size * 1.1, ahead) for side in (1.0, -1.0)]
        parts += [engine.translated(place).coloured(accent if high else 0.85 * _PALE.expand(n, 3)) for place in beside]
    whole = reduce(lambda a, b: a | b, parts)
    tail_half = 0.36 * wing_span
    ends = [  # of the fin, the tailplane, the wings, and the nose
        torch.hypot(height * lean.sin() + 0.45 * chord - back, radius * 0.7 + height * lean.cos()),
        _xyz(tail_half, at_tail[:, 1], tail_half * sweep.sin() + 0.31 * chord - at_tail[:, 2]).norm(dim=-1),
        torch.hypot(wing_span, chord / 2 + 0.2 if small else wing_span * sweep.sin() + chord / 2 - wing_place[:, 2]),
        torch.hypot(half + radius + 0.1, torch.full((n,), 0.27)) if small else half + radius,
    ]
    return _filling(whole, torch.stack(ends).amax(0) + 0.02, generator)


# -------------------------------------------------------------------------------------------------------------- chairs


def _chair(n: int, generator: torch.Generator, kind: str) -> Shapes:
    def random(low: float, high: float) -> Tensor:
        return uniform(n, low, high, generator)

    half_width, half_depth = random(0.24, 0.32), random(0.24, 0.3)
    seat_height, thick = random(-0.18, -0.06), random(0.03, 0.07)
    floor = torch.full((n,), -0.72)
    back_height = random(0.26, 0.38) if kind != "stool" else torch.zeros(n)
    cloth, wood = vivid(n, generator), _either(n, _WOOD, generator)
    seat = (
        RoundedBox(_xyz(half_width, thick, half_depth), 0.028).translated(_xyz(0.0, seat_height, 0.0)).coloured(cloth)
    )
    parts = [seat]
    leg, legs = random(0.022, 0.035), []
    for x in (1.0, -1.0):
        for z in (1.0, -1.0):
            middle = _xyz(x * (half_width - leg), (seat_height + floor) / 2, z * (half_depth - leg))
            legs.append(RoundedBox(_xyz(leg, (seat_height - floor) / 2, leg), 0.015).translated(middle))
    frame = reduce(lambda a, b: a | b, legs)
    if kind != "stool":
        tilt = random(0.03, 0.2)
        board = RoundedBox(_xyz(half_width, back_height, 0.035), 0.03).translated(_xyz(0.0, back_height, 0.0))
        board = board.rotated(axis=(1.0, 0.0, 0.0), angle=-tilt)
        parts.append(board.translated(_xyz(0.0, seat_height, 0.035 - half_depth)).coloured(cloth))
    if kind == "armchair":
        rise = random(0.14, 0.2)
        for x in (1.0, -1.0):
            rest = RoundedBox(_xyz(0.03, 0.022, half_depth), 0.02).translated(
                _xyz(x * half_width, seat_height + rise, 0.0)
            )
            post: AnalyticField = RoundedBox(_xyz(0.022, rise / 2, 0.022), 0.015)
            post = post.translated(_xyz(x * half_width, seat_height + rise / 2, 0.8 * half_depth))
            frame = frame | rest | post
    whole = reduce(lambda a, b: a | b, [*parts, frame.coloured(wood)])
    corner = torch.stack([half_width + 0.03, -floor, half_depth], -1).norm(dim=-1)
    above = torch.stack([half_width, seat_height + 2 * back_height + 0.03, half_depth + 0.16], -1).norm(dim=-1)
    return _filling(whole, torch.maximum(corner, above) + 0.03, generator)


# ---------------------------------------------------------------------------------------------------------------- mugs


def _mug(n: int, generator: torch.Generator, kind: str) -> Shapes:
    def random(low: float, high: float) -> Tensor:
        return uniform(n, low, high, generator)

    radius, half, wall = random(0.3, 0.42), random(0.34, 0.52), random(0.035, 0.06)
    outside, inside = vivid(n, generator), vivid(n, generator)
    hollow = Cylinder(radius - wall, half).translated(_xyz(0.0, wall * 1.5, 0.0))
    body = Cylinder(radius, half).coloured(outside) - hollow.coloured(inside)
    grip, ring = random(0.035, 0.055), random(0.17, 0.24)
    ring = torch.minimum(ring, half * 0.62)
    handle = (
        Torus(ring, grip).rotated(axis=(1.0, 0.0, 0.0), angle=math.pi / 2).translated(_xyz(radius + 0.02, 0.0, 0.0))
    )
    handle = handle.coloured(outside) - Cylinder(radius - wall / 2, half * 2)  # nothing of it inside
    return _filling(
        body | handle, torch.maximum(torch.hypot(radius, half), radius + 0.02 + ring + grip) + 0.01, generator
    )


FAMILIES: dict[str, dict[str, Callable[[int, torch.Generator, str], Shapes]]] = {
    "aircraft": dict.fromkeys(("airliner", "jet", "propeller"), _aircraft),
    "chairs": dict.fromkeys(("chair", "armchair", "stool"), _chair),
    "mugs": {"mug": _mug},
}
