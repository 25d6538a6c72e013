"""Encodings of Gaussians instead of points: of pieces of cones (mip-NeRF, Barron et al. 2021, arXiv:2103.13415) and of
lobes of directions (Ref-NeRF, Verbin et al. 2022, arXiv:2112.03907)."""

from __future__ import annotations

from torch import Tensor


def frustum_gaussians(
    origins: Tensor, directions: Tensor, edges: Tensor, radii: Tensor, *, cylinder: bool = False, full: bool = False
) -> tuple[Tensor, Tensor]:
    """The mean and covariance of the points in each piece of a cone around a ray (mip-NeRF, eqs. 7 and 8).

    Args:
        origins, directions: [R, 3] float32 or float64, directions of length 1.
        edges: [R, S+1] ascending distances along the ray, not all 0.
        radii: [R] radius of the cone per unit of distance, or of the cylinder.
        full: covariances as matrices [R, S, 3, 3], else their diagonals [R, S, 3].

    Returns:
        means [R, S, 3] and covariances. Not differentiable: RuntimeError when an argument requires grad.
    """
    from . import reference_volume

    return reference_volume.frustum_gaussians(origins, directions, edges, radii, cylinder=cylinder, full=full)


def integrated_positional_encoding(means: Tensor, variances: Tensor, octaves: int) -> Tensor:
    """Expected sines and cosines of x ~ N(mean, variance): exp(-4^k variance / 2) sin(2^k mean), likewise cos.

    In the order of `positional_encoding` without its input: [sin(x), cos(x), sin(2 x), ...], each of D values. To
    encode along other axes than those of the coordinates, pass means @ basis and the diagonal of
    basis^T covariance basis.

    Args:
        means, variances: [..., D] of one dtype, float16, bfloat16, float32 or float64.
        octaves: number of frequencies, 0 to 32.

    Returns:
        [..., 2 octaves D]. Differentiable in means and variances to any order.
    """
    from . import reference_volume

    return reference_volume.integrated_positional_encoding(means, variances, octaves)


def integrated_directional_encoding(directions: Tensor, roughness: Tensor, levels: int = 4) -> Tensor:
    """Expected spherical harmonics of directions spread around one (Ref-NeRF, eqs. 7 and 8).

    Y_l^m(direction) exp(-l (l+1) roughness / 2) of l = 1, 2, 4, ... 2^(levels-1) and m = 0 ... l: all real parts, then
    all imaginary parts; 38 values for 4 levels. The roughness is 1/kappa, the inverse concentration of a von
    Mises-Fisher distribution. Off the unit sphere it is the polynomial N Q_l^m(z) (x + iy)^m, Q the m-th derivative
    of the Legendre polynomial.

    Args:
        directions: [..., 3] unit, float32 or float64 (half types are computed and returned in float32).
        roughness: [...] >= 0.
        levels: 1 to 5.

    Returns:
        [..., 2 (2^levels - 1 + levels)]. Differentiable once in both.
    """
    from . import reference_volume

    return reference_volume.integrated_directional_encoding(directions, roughness, levels)
