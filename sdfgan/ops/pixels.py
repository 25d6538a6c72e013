"""Rays and colours of any pixels of many photographs, with per-image intrinsics, lenses and masks."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._library import REAL, Checker, named, native, refuse_gradient, register, require_tensors

_LENS_TERMS = (4, 5, 8, 9)


class PixelViews(NamedTuple):
    """B photographs' cameras. All pixels of all of them, row by row, have one numbering: 0 to P-1."""

    camera_to_world: Tensor  # [B, 3, 4] columns x, y, z, position; the camera looks along -z
    intrinsics: Tensor  # [B, 4] fx, fy, cx, cy in pixels; the centre of the first pixel is (0.5, 0.5)
    widths: Tensor  # [B] int64, pixels
    starts: Tensor  # [B+1] int64: the first pixel of each photograph, then P
    distortion: Tensor | None = None  # [B, D] the lens, see `sample_pixels`; None: a pinhole
    fisheye: Tensor | None = None  # [B] bool: whose lens acts on angles; None: nobody's
    mask: Tensor | None = None  # [P] bool: pixels that have a ray; None: all


class PixelSamples(NamedTuple):
    """What N pixels see, and saw."""

    origins: Tensor  # [N, 3]
    directions: Tensor  # [N, 3] unit
    radii: Tensor  # [N] radius of the pixel's cone per unit of distance (mip-NeRF: 2/sqrt(12) pixel widths)
    colors: Tensor | None  # [N, C] of the photograph


def pixel_views(
    camera_to_world: Tensor,
    intrinsics: Tensor,
    sizes: Tensor,
    distortion: Tensor | None = None,
    fisheye: Tensor | None = None,
    mask: Tensor | None = None,
) -> PixelViews:
    """The `PixelViews` of photographs of sizes [B, 2] int64, (height, width)."""
    starts = torch.cat([sizes.new_zeros(1), sizes.prod(1).cumsum(0)])
    return PixelViews(camera_to_world, intrinsics, sizes[:, 1].contiguous(), starts, distortion, fisheye, mask)


def sample_pixels(views: PixelViews, pixels: Tensor, images: Tensor | None = None) -> PixelSamples:
    """Rays through the centres of pixels, and the pixels' colours.

    A lens moves (x, y) at distance 1 before the camera (x right, y down), with r^2 = x^2 + y^2, to
        x R + 2 p1 x y + p2 (r^2 + 2 x^2),  y R + p1 (r^2 + 2 y^2) + 2 p2 x y,
        R = (1 + k1 r^2 + k2 r^4 + k3 r^6 + a r^8) / (1 + k4 r^2 + k5 r^4 + k6 r^6),
    which is OpenCV's model with a = 0. `views.distortion` has the first D, 4, 5, 8 or 9, of k1, k2, p1, p2, k3, k4, k5,
    k6, a for each photograph. Where `views.fisheye` is set, (x, y) is the direction from the axis times the angle to
    it, and a the fourth factor of OpenCV's fisheye: R = 1 + k1 r^2 + k2 r^4 + k3 r^6 + a r^8, to 180 degrees off axis.

    It is inverted by Newton's method in float64. Pixels where that finds no point, or one past the fold of the lens,
    those that `views.mask` leaves out, and pixel numbers outside [0, P) give NaN; `valid_pixels` lists the others.

    Args:
        views: float32 or float64.
        pixels: [N] int64, their numbers.
        images: [P, C] uint8 (then colours are divided by 255) or of the dtype of the cameras.

    Returns:
        `PixelSamples` of the dtype of the cameras. Not differentiable: RuntimeError when an argument requires grad.
    """
    camera_to_world, intrinsics, widths, starts, distortion, fisheye, mask = views
    require_tensors("sample_pixels", camera_to_world=camera_to_world, intrinsics=intrinsics, pixels=pixels)
    refuse_gradient("sample_pixels", camera_to_world=camera_to_world, intrinsics=intrinsics)
    for name, tensor in (("distortion", distortion), ("images", images)):
        if tensor is not None:
            refuse_gradient("sample_pixels", **{name: tensor})
    found = _op(camera_to_world, intrinsics, widths, starts, distortion, fisheye, mask, pixels, images)
    return PixelSamples(found[0], found[1], found[2], None if images is None else found[3])


def valid_pixels(views: PixelViews, mask: Tensor | None = None) -> Tensor:
    """The numbers [M] int64, ascending, of all pixels that have a ray and are set in `mask` [P] bool."""
    count = int(views.starts[-1])
    found = []
    for pixels in torch.arange(count, device=views.starts.device).split(2**20):
        good = sample_pixels(views, pixels).radii.isfinite()
        if mask is not None:
            good = good & mask[pixels]
        found.append(pixels[good])
    return torch.cat([views.starts[:0], *found])


Four = tuple[Tensor, Tensor, Tensor, Tensor]


def _fake(
    camera_to_world: Tensor, intrinsics: Tensor, widths: Tensor, starts: Tensor, distortion: Tensor | None,
    fisheye: Tensor | None, mask: Tensor | None, pixels: Tensor, images: Tensor | None,
) -> Four:  # fmt: skip
    check = Checker("sample_pixels")
    check("views.camera_to_world", camera_to_world, ("B", 3, 4), REAL)
    dtype = camera_to_world.dtype
    check("views.intrinsics", intrinsics, ("B", 4), (dtype,))
    check("views.widths", widths, ("B",), (torch.int64,))
    check.sizes["B+1"] = check.sizes["B"] + 1
    check("views.starts", starts, ("B+1",), (torch.int64,))
    if distortion is not None:
        check("views.distortion", distortion, ("B", "D"), (dtype,))
        if check.sizes["D"] not in _LENS_TERMS:
            raise ValueError(f"sample_pixels: views.distortion must be [B, D], D = 4, 5, 8, 9, got {check.sizes['D']}")
    if fisheye is not None:
        check("views.fisheye", fisheye, ("B",), (torch.bool,))
    if mask is not None:
        check("views.mask", mask, ("M",), (torch.bool,))
    check("pixels", pixels, ("N",), (torch.int64,))
    if images is not None:
        check("images", images, ("P", "C"), (torch.uint8, dtype))
    n, new = pixels.shape[0], camera_to_world.new_empty
    return new((n, 3)), new((n, 3)), new((n,)), new((n, 0 if images is None else images.shape[1]))


def _kernel(*arguments: Any) -> Four:
    results = origins, directions, radii, colors = _fake(*arguments)
    cameras, _, _, _, distortion, _, mask, pixels, images = arguments
    native(cameras).sample_pixels(
        **named(_op, arguments),
        origins=origins,
        directions=directions,
        radii=radii,
        colors=colors,
        count=pixels.shape[0],
        views=cameras.shape[0],
        channels=colors.shape[1],
        stored=0 if images is None else images.shape[0],
        terms=0 if distortion is None else distortion.shape[1],
        masked=0 if mask is None else mask.shape[0],
        bytes=images is not None and images.dtype == torch.uint8,
    )
    return results


_op = register(
    "sample_pixels(Tensor cameras, Tensor intrinsics, Tensor widths, Tensor starts, Tensor? distortion,"
    " Tensor? fisheye, Tensor? mask, Tensor pixels, Tensor? images) -> (Tensor, Tensor, Tensor, Tensor)",
    _kernel,
    _fake,
)
