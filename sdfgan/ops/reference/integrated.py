"""Encodings of cones and of lobes in plain torch: what `sdfgan.ops.integrated` means."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def frustum_gaussians(
    origins: Tensor, directions: Tensor, edges: Tensor, radii: Tensor, *, cylinder: bool = False, full: bool = False
) -> tuple[Tensor, Tensor]:
    """Moments of the pieces of cones (mip-NeRF, eq. 7) or cylinders."""
    near, far = edges[:, :-1], edges[:, 1:]
    middle, half = (near + far) / 2, (far - near) / 2
    radius2 = radii[:, None].square()
    if cylinder:
        mean, along, across = middle, half**2 / 3, (radius2 / 4).expand_as(middle)
    else:
        total = 3 * middle**2 + half**2
        mean = middle + 2 * middle * half**2 / total
        along = half**2 / 3 - 4 / 15 * half**4 * (12 * middle**2 - half**2) / total**2
        across = radius2 * (middle**2 / 4 + 5 / 12 * half**2 - 4 / 15 * half**4 / total)
    means = origins[:, None] + mean[..., None] * directions[:, None]
    outer = directions[:, :, None] * directions[:, None, :]  # [R, 3, 3]
    null = torch.eye(3, dtype=edges.dtype, device=edges.device) - outer
    covariances = along[..., None, None] * outer[:, None] + across[..., None, None] * null[:, None]
    return means, covariances if full else covariances.diagonal(dim1=-2, dim2=-1).contiguous()


def integrated_positional_encoding(means: Tensor, variances: Tensor, octaves: int) -> Tensor:
    """E[sin(2^k x)], E[cos(2^k x)] of x ~ N(mean, variance), in float64."""
    blocks = [means.double()[..., :0]]
    for octave in range(octaves):
        angle = means.double() * 2.0**octave
        damping = (-0.5 * 4.0**octave * variances.double()).exp()
        blocks += [damping * angle.sin(), damping * angle.cos()]
    return torch.cat(blocks, -1).to(means.dtype)


def integrated_directional_encoding(directions: Tensor, roughness: Tensor, levels: int = 4) -> Tensor:
    """Polynomials in z by their coefficients, times powers of x + iy, in float64."""
    x, y, z = directions.double().unbind(-1)
    real, imaginary = [], []
    for level in range(levels):
        degree = 2**level
        damping = (-0.5 * degree * (degree + 1) * roughness.double()).exp()
        re, im = torch.ones_like(x), torch.zeros_like(x)  # (x + iy)^m
        for order in range(degree + 1):
            legendre = sum(
                coefficient * z**power for power, coefficient in enumerate(_legendre(degree, order)) if coefficient
            )
            real.append(damping * legendre * re)
            imaginary.append(damping * legendre * im)
            re, im = re * x - im * y, re * y + im * x
    empty = directions.new_empty((*directions.shape[:-1], 0), dtype=torch.float64)
    stacked = [torch.stack(parts, -1) if parts else empty for parts in (real, imaginary)]
    return torch.cat(stacked, -1).to(directions.dtype)


def _legendre(degree: int, order: int) -> list[float]:
    """Coefficients by powers of z of the spherical harmonic Y over (x + iy)^order, Condon-Shortley phase."""
    scale = (2 * degree + 1) / (4 * math.pi) * math.factorial(degree - order) / math.factorial(degree + order)
    result = [0.0] * (degree - order + 1)
    for k in range(degree // 2 + 1):  # d^order/dz^order of (1/2^l) sum_k (-1)^k C(l,k) C(2l-2k,l) z^(l-2k)
        power = degree - 2 * k
        if power >= order:
            term = (-1) ** k * math.comb(degree, k) * math.comb(2 * degree - 2 * k, degree) / 2**degree
            term *= math.factorial(power) / math.factorial(power - order)
            result[power - order] = (-1) ** order * math.sqrt(scale) * term
    return result
