"""FiLM-SIREN networks, fused: values at many points, and their gradients by everything.

`sdfgan.fields.FilmSirenSDF` says what the network is; its `network` packs one.
"""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _C
from ._library import REAL, Checker, native, refuse_gradient, register, require_tensors, workspace

CUDA_WIDTHS = (64, 128, 256)  # of networks on CUDA
_PANEL = 8  # outputs that lie together in a matrix packed for a CPU
_FRAGMENT = 16  # inputs and outputs that lie together in a float16 matrix
_MATRICES = {
    torch.float32: 0,
    torch.float64: 0,
    torch.bfloat16: 1,
    torch.float16: 2,
}  # `Matrices` of csrc/kernels/film_siren.h


class Mirror(NamedTuple):
    """A plane through the vertical axis on whose sides a field is alike: the network is asked on one of them, at points
    whose distance d from the plane is sqrt(d^2 + softness^2) instead. That is smooth in the plane, and no steeper than
    |d|.
    """

    x: float  # of the unit normal (x, 0, z), to the side where the network is asked
    z: float
    softness: float  # world units; above 0


class FilmSirenNetwork(NamedTuple):
    """A FiLM-SIREN as the kernels take it: one copy of the weights for all images, and FiLM for each.

    Layers are sin(scale (W x) + shift), biases within shift; first those of the trunk, then of the sdf, then of the
    texture. All real tensors share a dtype: float32, or on a CPU float64. The matrices may be bfloat16 (CPU) or float16
    (CUDA) beside float32. W is a multiple of 16; on CUDA, one of `CUDA_WIDTHS`.
    """

    first: Tensor  # [W, 3]
    hidden: Tensor  # [layers - 1, W, W], packed by `pack_matrices`
    transposed: Tensor  # the same of the transposed matrices; on CUDA always float32: [layers - 1, W, W] as they are
    sdf_head: Tensor  # [W]
    texture_head: Tensor  # [3, W]
    constants: Tensor  # [2]: the sdf is head . features + sqrt(|x|^2 + constants[0]) + constants[1]
    scale: Tensor  # [B, layers, W]
    shift: Tensor  # [B, layers, W]
    layers: tuple[int, int, int]  # of trunk, sdf (both at least 1) and texture
    mirror: Mirror | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """All but the last two, in order."""
        return list(self[:-2])


def pack_matrices(weights: Tensor, precision: str = "fp32", device: str | None = None) -> Tensor:
    """Matrices [L, W, W] (outputs, inputs) as the kernels of a device ("cpu", "cuda"; None: theirs) take them.

    On a CPU, panels of 8 outputs: [L, W/8, W, 8], or for "bf16" [L, W/8, W/2, 8, 2]. On CUDA (inputs, outputs)
    [L, W, W], or for "fp16" [L, W/16, W/16, 32, 8]: of 16 outputs and 16 inputs, what each lane of a warp holds as the
    second operand of two products m16n8k16 (NVIDIA, PTX ISA, "Matrix Fragments").

    Raises ValueError for a width or a precision that the device does not take, and RuntimeError for "bf16" on a CPU
    without bfloat16 arithmetic, unless the environment variable SDFGAN_EMULATE_BF16=1 asks for its (slow) emulation.
    """
    layers, width, _ = weights.shape
    device = device or weights.device.type
    precisions, wanted = (("fp32", "fp16"), CUDA_WIDTHS) if device == "cuda" else (("fp32", "bf16"), "a multiple of 16")
    if precision not in precisions:
        raise ValueError(f"pack_matrices: precision must be one of {precisions} on {device}, got {precision!r}")
    if width % 16 or (device == "cuda" and width not in CUDA_WIDTHS):
        raise ValueError(f"pack_matrices: the width must be {wanted} on {device}, got {width}")
    if device == "cuda":
        if precision == "fp32":
            return weights.transpose(1, 2).contiguous()
        blocks = width // _FRAGMENT
        parts = weights.half().view(layers, blocks, 2, 8, blocks, 2, 4, 2)  # outputs in three parts, inputs in four
        return parts.permute(0, 1, 4, 3, 6, 2, 5, 7).reshape(layers, blocks, blocks, 32, 8)
    panels = weights.view(layers, width // _PANEL, _PANEL, width)
    if precision == "fp32":
        return panels.transpose(2, 3).contiguous()
    if not _C.has_bf16() and os.environ.get("SDFGAN_EMULATE_BF16") != "1":
        raise RuntimeError(f"precision 'bf16' needs a CPU with AVX512_BF16, this one has {_C.simd()}; use 'fp32'")
    pairs = panels.to(torch.bfloat16).unflatten(3, (width // 2, 2))
    return pairs.transpose(2, 3).contiguous()


def pack_film(scale: Tensor, shift: Tensor) -> Tensor:
    """FiLM [B, layers, W] as the float16 kernels take it: [B, layers, W/2, 4], so that a lane loads 16 bytes at once.

    Those are scale, scale, shift, shift of two outputs.
    """
    return torch.cat((scale.unflatten(2, (-1, 2)), shift.unflatten(2, (-1, 2))), dim=3)


def film_siren(points: Tensor, image: Tensor, network: FilmSirenNetwork) -> Tensor:
    """Signed distances [N] at points [N, 3]; differentiable as `film_siren_sample`, by the points twice.

    On a CPU, a tile of up to 48 points passes through all layers in cache; the float32 sine is a polynomial (error
    below 2e-7 for phases below 100). Results do not depend on the number of threads. On CUDA the same, for 32 to 256
    points; with float16 matrices (sm_80 or later, else RuntimeError) products are those of tensor cores, and sums,
    first layer and phases float32.

    Args:
        points: [N, 3] float32 or float64.
        image: [N] int64, row of scale and shift; fastest when points of an image lie together. A point of no image
            gives NaN.
    """
    tensors = _tensors("film_siren", network, points=points, image=image)
    return _film_siren(mirrored(points, network.mirror), image, tensors, list(network.layers))


def film_siren_variation(points: Tensor, image: Tensor, network: FilmSirenNetwork) -> Tensor:
    """Zeros [N] with the gradient of `film_siren`: nothing is evaluated before it is wanted; see there."""
    tensors = _tensors("film_siren_variation", network, points=points, image=image)
    return _film_siren_variation(mirrored(points, network.mirror), image, tensors, list(network.layers))


def film_siren_sample(points: Tensor, image: Tensor, network: FilmSirenNetwork) -> tuple[Tensor, Tensor, Tensor]:
    """Signed distances [N], their gradients [N, 3] and texture_head . features [N, 3]; see `film_siren`.

    With float16 matrices derivatives of features are rounded to float16 too: above 65504 they become infinite.

    All three are differentiable once, by points and by every tensor of the network. `hidden` and `transposed` must be
    made of the same matrices; what is due to these is given to `hidden` on a CPU, and on CUDA to `transposed`, where
    they are float32 (RuntimeError if `hidden` requires grad there). Nothing is kept for it but where a mirror moved the
    points: the gradient is one call that goes through all layers again, forward and back, tile by tile
    (csrc/cpu/film_siren_backward.cpp has the formulas). The images may come in any order; points of no image have NaN
    as gradient and add nothing. The gradient does not depend on the number of threads; on CUDA it has the same bits in
    each run, and nothing waits for the device. With float16 matrices its products are those of tensor cores too, and
    all sums are float32.
    Not differentiable with bfloat16 matrices: RuntimeError for tensors that require grad.
    """
    tensors = _tensors("film_siren_sample", network, points=points, image=image)
    asked = mirrored(points, network.mirror)
    value, gradient, texture = _film_siren_sample(asked, image, tensors, list(network.layers))
    return value, through_mirror(gradient, points, network.mirror), texture


def mirrored(points: Tensor, mirror: Mirror | None) -> Tensor:
    """Where a network with a mirror is asked, [..., 3], for points [..., 3]. Differentiable."""
    if mirror is None or points.shape[-1:] != (3,) or not points.is_floating_point():  # operators refuse the latter
        return points
    x, y, z = points.unbind(-1)
    distance = mirror.x * x + mirror.z * z
    moved = torch.sqrt(distance.square() + mirror.softness**2) - distance
    return torch.stack((x + mirror.x * moved, y, z + mirror.z * moved), -1)


def through_mirror(gradient: Tensor, points: Tensor, mirror: Mirror | None) -> Tensor:
    """The gradient [..., 3] by points [..., 3] of one by where the network was asked for them. Differentiable."""
    if mirror is None:
        return gradient
    x, _, z = points.unbind(-1)
    distance = mirror.x * x + mirror.z * z
    slope = distance / torch.sqrt(distance.square() + mirror.softness**2)
    by_x, by_y, by_z = gradient.unbind(-1)
    more = (slope - 1) * (mirror.x * by_x + mirror.z * by_z)
    return torch.stack((by_x + mirror.x * more, by_y, by_z + mirror.z * more), -1)


def check_mirror(mirror: Mirror | None) -> None:
    """Raises ValueError for numbers that describe no mirror."""
    if mirror is None:
        return
    if not isinstance(mirror, Mirror) or not all(isinstance(part, (int, float)) for part in mirror):
        raise ValueError(f"mirror must be an ops.Mirror of three numbers, got {mirror!r:.80}")
    if not abs(math.hypot(mirror.x, mirror.z) - 1) < 1e-3 or not 0 < mirror.softness < math.inf:
        raise ValueError(f"mirror must be a unit normal (x, z) and a softness above 0, got {tuple(mirror)}")


def named_tensors(network: FilmSirenNetwork) -> dict[str, Tensor]:
    """Those of the network, by name."""
    return dict(zip(network._fields[:-2], network.tensors, strict=True))


def _tensors(op: str, network: FilmSirenNetwork, points: Tensor, image: Tensor) -> list[Tensor]:
    """Those of the network. Raises RuntimeError for a gradient that there is not."""
    named = {"points": points, "image": image, **named_tensors(network)}
    require_tensors(op, **named)
    if points.is_cuda:
        refuse_gradient(op, " by packed matrices on CUDA, but by `transposed`", hidden=network.hidden)
    elif network.hidden.dtype == torch.bfloat16:
        refuse_gradient(op, " with bfloat16 matrices", **named)
    return network.tensors


def check_network(check: Checker, network: list[Tensor], layers: list[int], like: Tensor) -> None:
    """Shapes and dtypes of the tensors of a network that is evaluated where `like` is. Raises ValueError, TypeError."""
    first, hidden, transposed, sdf_head, texture_head, constants, scale, shift = network
    if len(layers) != 3 or layers[0] < 1 or layers[1] < 1 or layers[2] < 0:
        raise ValueError(f"{check.op}: layers must be (trunk >= 1, sdf >= 1, texture >= 0), got {tuple(layers)}")
    real = (torch.float32,) if like.is_cuda else (like.dtype,)
    check("first", first, ("W", 3), real)
    width = first.shape[0]
    if like.is_cuda and width not in CUDA_WIDTHS:
        raise ValueError(f"{check.op}: on CUDA the width must be one of {CUDA_WIDTHS}, got {width}")
    shape, matrices = _packed_shape(sum(layers) - 1, width, hidden.dtype, like)
    check("hidden", hidden, shape, matrices)
    if like.is_cuda:
        shape, matrices = (sum(layers) - 1, width, width), real
    check("transposed", transposed, shape, matrices)
    check("sdf_head", sdf_head, ("W",), real)
    check("texture_head", texture_head, (3, "W"), real)
    check("constants", constants, (2,), real)
    check("scale", scale, ("B", sum(layers), "W"), real)
    check("shift", shift, ("B", sum(layers), "W"), real)


def _packed_shape(
    count: int, width: int, dtype: torch.dtype, like: Tensor
) -> tuple[tuple[int, ...], tuple[torch.dtype, ...]]:
    """See `pack_matrices`."""
    if like.is_cuda:
        if dtype == torch.float16:
            return (count, width // _FRAGMENT, width // _FRAGMENT, 32, 8), (torch.float16,)
        return (count, width, width), (torch.float32,)
    if dtype == torch.bfloat16 and like.dtype == torch.float32:
        return (count, width // _PANEL, width // 2, _PANEL, 2), (torch.bfloat16,)
    return (count, width // _PANEL, width, _PANEL), (like.dtype,)


def native_network(network: list[Tensor], layers: list[int]) -> dict:
    """`FilmSiren` of csrc/kernels/film_siren.h. FiLM is packed anew, since it may have been written to."""
    first, hidden, *_, scale, shift = network
    if first.is_cuda and any(tensor.data_ptr() % 16 for tensor in network):
        raise ValueError("on CUDA the tensors of a FilmSirenNetwork must be aligned to 16 bytes: clone() slices")
    return {
        **dict(zip(FilmSirenNetwork._fields, network, strict=False)),
        "film": pack_film(scale, shift) if hidden.dtype == torch.float16 else None,
        "images": scale.shape[0],
        "width": first.shape[0],
        "trunk_layers": layers[0],
        "sdf_layers": layers[1],
        "texture_layers": layers[2],
        "matrices": _MATRICES[hidden.dtype],
    }


def _check_points(op: str, points: Tensor, image: Tensor, network: list[Tensor], layers: list[int]) -> Checker:
    check = Checker(op)
    check("points", points, ("N", 3), (torch.float32,) if points.is_cuda else REAL)
    check("image", image, ("N",), (torch.int64,))
    check_network(check, network, layers, points)
    return check


def _fake(points: Tensor, image: Tensor, network: list[Tensor], layers: list[int]) -> Tensor:
    _check_points("film_siren", points, image, network, layers)
    return points.new_empty(points.shape[0])


def _kernel(points: Tensor, image: Tensor, network: list[Tensor], layers: list[int]) -> Tensor:
    sdf = _fake(points, image, network, layers)
    _launch(points, image, network, layers, sdf)
    return sdf


def _variation_kernel(points: Tensor, image: Tensor, network: list[Tensor], layers: list[int]) -> Tensor:
    return _fake(points, image, network, layers).zero_()


def _launch(
    points: Tensor,
    image: Tensor,
    network: list[Tensor],
    layers: list[int],
    sdf: Tensor,
    gradient: Tensor | None = None,
    texture: Tensor | None = None,
) -> None:
    native(points).film_siren(
        network=native_network(network, layers),
        points=points,
        image=image,
        sdf=sdf,
        gradient=gradient,
        texture=texture,
        count=points.shape[0],
    )


def _sample_fake(
    points: Tensor, image: Tensor, network: list[Tensor], layers: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    _check_points("film_siren_sample", points, image, network, layers)
    return points.new_empty(points.shape[0]), torch.empty_like(points), torch.empty_like(points)


def _sample_kernel(
    points: Tensor, image: Tensor, network: list[Tensor], layers: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    outputs = _sample_fake(points, image, network, layers)
    _launch(points, image, network, layers, *outputs)
    return outputs


# ------------------------------------------------------------------------------------------------- the gradient


def _backward_fake(
    points: Tensor,
    image: Tensor,
    network: list[Tensor],
    layers: list[int],
    grad_sdf: Tensor | None,
    grad_gradient: Tensor | None,
    grad_texture: Tensor | None,
) -> tuple[Tensor, ...]:
    op = "film_siren_backward"
    if not points.is_cuda and network[1].dtype != points.dtype:
        got = str(network[1].dtype).removeprefix("torch.")
        raise ValueError(f"{op}: on a CPU the matrices must have the points' dtype, got {got}")
    check = _check_points(op, points, image, network, layers)
    for name, tensor in (("sdf", grad_sdf), ("gradient", grad_gradient), ("texture", grad_texture)):
        if tensor is not None:
            check(f"grad_{name}", tensor, ("N",) if name == "sdf" else ("N", 3), (points.dtype,))
    first, hidden, transposed, *others = network
    matrices = transposed if points.is_cuda else hidden
    return tuple(torch.empty_like(tensor) for tensor in (points, first, matrices, *others))


def _backward_kernel(*given: Any) -> tuple[Tensor, ...]:
    outputs = _backward_fake(*given)
    points, image, network, layers, grad_sdf, grad_gradient, grad_texture = given
    grad_points, first, hidden, sdf_head, texture_head, constants, scale, shift = outputs
    if points.is_cuda:
        network, on_cuda = for_cuda_gradient(points, image, network)
    else:
        on_cuda = dict.fromkeys(("order", "begin", "workspace"))
    native(points).film_siren_backward(
        network=native_network(network, layers),
        points=points,
        image=image,
        grad_sdf=grad_sdf,
        grad_gradient=grad_gradient,
        grad_texture=grad_texture,
        grad_points=grad_points,
        grad_first=first,
        grad_hidden=hidden,
        grad_sdf_head=sdf_head,
        grad_texture_head=texture_head,
        grad_constants=constants,
        grad_scale=scale,
        grad_shift=shift,
        **on_cuda,
        count=points.shape[0],
    )
    return outputs


def for_cuda_gradient(
    points: Tensor, image: Tensor, network: list[Tensor]
) -> tuple[list[Tensor], dict[str, Tensor | None]]:
    """The network with both kinds of matrices packed, and what `FilmSirenBackward` needs on CUDA alone."""
    first, hidden, transposed, *_, scale, _ = network
    images, layers, width = scale.shape
    half = hidden.dtype == torch.float16
    if half:
        matrices = pack_matrices(transposed.transpose(1, 2).contiguous(), "fp16", "cuda")
        network = [first, hidden, matrices, *network[3:]]
    known = torch.where((image < 0) | (image >= images), images, image)
    by_image, order = known.sort(stable=True)
    begin = torch.searchsorted(by_image, torch.arange(images + 1, device=image.device))
    memory = workspace(points, "film_siren_backward", points.shape[0], images, width, layers, half)
    return network, {"order": order, "begin": begin, "workspace": memory}


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    points, image, network, ctx.layers = inputs
    ctx.save_for_backward(points, image, *network)
    ctx.set_materialize_grads(False)


def _values_backward(ctx: Any, grad: Tensor | None) -> tuple[Any, ...]:
    points, image, *network = ctx.saved_tensors  # once: recomputing checkpoints unpack them only once
    by_points, *others = _gradients(points, image, network, ctx.layers, grad, None, None)
    if torch.is_grad_enabled() and grad is not None:  # it is to be differentiated once more
        by_points = grad[:, None] * _film_siren_sample(points, image, network, ctx.layers)[1]
    return by_points, *others


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    points, image, *network = ctx.saved_tensors
    return _gradients(points, image, network, ctx.layers, *grads)


def _gradients(
    points: Tensor, image: Tensor, network: list[Tensor], layers: list[int], *grads: Tensor | None
) -> tuple[Any, ...]:
    """By the arguments of `film_siren` and `film_siren_sample`."""
    if all(grad is None for grad in grads):
        return None, None, [None] * len(network), None
    incoming = (None if grad is None else grad.contiguous() for grad in grads)
    by_points, first, matrices, *others = _film_siren_backward(points, image, network, layers, *incoming)
    by_matrices = [None, matrices] if points.is_cuda else [matrices, None]
    return by_points, None, [first, *by_matrices, *others], None


def _no_second_derivative(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    raise RuntimeError(
        "film_siren_sample: has no second derivative; that of sdfgan.ops.reference has, and a FilmSirenSDF with "
        "native_gradients = False"
    )


_film_siren = register(
    "film_siren(Tensor points, Tensor image, Tensor[] network, int[] layers) -> Tensor",
    _kernel,
    _fake,
    _values_backward,
    _setup_context,
)
_film_siren_variation = register(
    "film_siren_variation(Tensor points, Tensor image, Tensor[] network, int[] layers) -> Tensor",
    _variation_kernel,
    _fake,
    _values_backward,
    _setup_context,
)
_film_siren_sample = register(
    "film_siren_sample(Tensor points, Tensor image, Tensor[] network, int[] layers) -> (Tensor, Tensor, Tensor)",
    _sample_kernel,
    _sample_fake,
    _backward,
    _setup_context,
)
_GRADS = "Tensor? grad_sdf, Tensor? grad_gradient, Tensor? grad_texture"
_film_siren_backward = register(
    f"film_siren_backward(Tensor points, Tensor image, Tensor[] network, int[] layers, {_GRADS})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward_kernel,
    _backward_fake,
    _no_second_derivative,
)
