"""The interface of signed-distance fields, which everything in `sdfgan.fields` implements.

Points are flat, [N, 3], so that a tracer may drop finished rays; `image` says which row of the condition each point
belongs to and is sorted, so that the points of one shape lie together.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from sdfgan import ops
from sdfgan.checks import as_tensor

Bound: TypeAlias = float | np.ndarray  # one for all images, or [B], one for each


def bound_of(function: Callable[..., float], *bounds: Bound) -> Bound:
    """A function of numbers, of the bounds of each image where they differ: each image's is what it would be alone."""
    images = sorted({len(bound) for bound in bounds if isinstance(bound, np.ndarray)})
    if not images:
        return function(*bounds)
    if len(images) > 1:
        raise ValueError(f"parts have parameters for {' and '.join(map(str, images))} images")
    return np.array([function(*row) for row in zip(*np.broadcast_arrays(*bounds), strict=True)])


class FieldSample(NamedTuple):
    """Values of a field at N points."""

    sdf: Tensor  # [N] world units, negative inside
    gradient: Tensor  # [N, 3] of the sdf by position; its length is 1 for a true distance
    rgb: Tensor  # [N, 3] linear albedo in [0, 1]


def linear_layers(
    inputs: int, width: int, hidden: int, outputs: int, activation: Callable[[], nn.Module]
) -> nn.Sequential:
    """Linear layers with activations between; so many `hidden` ones of `width` units, as torch initialises them."""
    modules: list[nn.Module] = []
    for _ in range(hidden):
        modules += [nn.Linear(inputs, width), activation()]
        inputs = width
    return nn.Sequential(*modules, nn.Linear(inputs, outputs))


def eikonal_loss(gradients: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean of (|gradient| - 1)^2 over gradients [N, 3] (Gropp et al. 2020); 0 for none. Differentiable.

    valid: [M] bool, which of the first M count, as in `raycast.Rendering.valid`; None: all.
    """
    if len(gradients) == 0:
        return gradients.sum()
    # The tiny constant keeps the derivative finite where the gradient vanishes.
    squares = (torch.sqrt(gradients.square().sum(-1) + 1e-12) - 1).square()
    if valid is None:
        return squares.mean()
    weights = F.pad(valid, (0, len(squares) - len(valid)), value=True)
    return (squares * weights).sum() / weights.sum().clamp(min=1)


class Field(nn.Module):
    """A signed-distance field with colour, for one shape or for one shape per latent.

    A subclass defines `sdf` and, where it has them, `condition` and `rgb`. Everything is differentiable in points,
    condition and parameters.
    """

    latent_size: int = 0
    unsigned: bool = False  # whether distances are of a sheet, which has no inside: nowhere negative
    lipschitz: Bound = 1.0  # an upper bound of |gradient|; tracers divide their steps by it
    mixed_precision: bool = False  # whether autocast may shorten it where images are made; never where rays are traced

    @property
    def extent(self) -> Bound:
        """No surface is farther from the origin: rays are clipped to that ball. Unless it knows better: the cube's."""
        return math.sqrt(3)

    @property
    def images(self) -> int | None:
        """How many images the field's own parameters are for; None: for any number."""
        return None

    def condition(self, latents: Tensor | None) -> Any:
        """What depends on the latents [B, latent_size] alone; computed once per image, never per point."""
        return None

    def _check_latents(self, latents: Tensor | None) -> None:
        """Raises ValueError unless the latents are [B, latent_size], of the type of the field's parameters."""
        function = f"{type(self).__name__}.condition"
        if latents is None or latents.ndim != 2 or latents.shape[1] != self.latent_size:
            got = "None" if latents is None else list(latents.shape)
            raise ValueError(f"{function}: latents must be [B, {self.latent_size}], got {got}")
        types = [str(tensor.dtype).removeprefix("torch.") for tensor in (next(self.parameters()), latents)]
        if types[0] != types[1]:
            raise ValueError(f"{function}: latents must be {types[0]}, as the weights are, got {types[1]}")

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """Signed distances [N] at points [N, 3]. `image` [N] int64, sorted: each point's row of the condition."""
        raise NotImplementedError

    def sdf_variation(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """Zeros [N] with the gradient of `sdf`: for what moves with the field, and is known already where it is."""
        value = self.sdf(points, condition, image)
        return value - value.detach()

    def rgb(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """Linear albedo [N, 3] at points [N, 3]; mid-grey unless the field has a colour."""
        return torch.full_like(points, 0.7)

    def sdf_and_gradient(
        self, points: Tensor, condition: Any = None, image: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Distances [N] and their gradients [N, 3], by reverse-mode autograd unless a field knows better."""
        (value,), gradient = differentiate(lambda *given: (self.sdf(*given),), self, points, condition, image)
        return value, gradient

    def evaluate(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> FieldSample:
        """Everything shading needs at points [N, 3]."""
        value, gradient = self.sdf_and_gradient(points, condition, image)
        return FieldSample(value, gradient, self.rgb(points, condition, image))

    def network(self, condition: Any, precision: str | None = "fp32") -> ops.FilmSirenNetwork | None:
        """The field as the fused kernels take it, without a graph; None for a field that they do not know, or not here.

        precision: of the matrices, "fp32", "bf16" or "fp16" (`ops.pack_matrices`), or None for what is fast and good
        enough to trace with.
        """
        return None

    def forward(self, points: Tensor, latents: Tensor | None = None) -> Tensor:
        """Signed distances [...] at points [..., 3]: of one shape (latents None or [1, L]), or at points [B, ..., 3] of
        B shapes (latents [B, L])."""
        points = as_tensor("points", points)
        shape = points.shape[:-1]
        if points.shape[-1:] != (3,):
            raise ValueError(f"points must be [..., 3], got {list(points.shape)}")
        flat, image = points.reshape(-1, 3), None
        if latents is not None and len(latents) != 1:
            if shape[:1] != latents.shape[:1]:
                raise ValueError(
                    f"latents must be [1, L], or [B, L] for points [B, ..., 3], got {list(latents.shape)} for points "
                    f"{list(points.shape)}"
                )
            image = torch.arange(len(latents), device=points.device).repeat_interleave(math.prod(shape[1:]))
        return self.sdf(flat, self.condition(latents), image).reshape(shape)


def differentiate(
    function: Callable[..., tuple[Tensor, ...]], field: nn.Module, points: Tensor, condition: Any, image: Tensor | None
) -> tuple[tuple[Tensor, ...], Tensor]:
    """What `function(points [N, 3], condition, image)` of a field gives, and the gradient [N, 3] of its first [N].

    With a graph of both where gradients are enabled and something beside the field's own copy of the points needs one.
    Autograd takes no tensors of inference mode: copies stand in.
    """
    if torch._C._are_functorch_transforms_active():  # inside of which autograd cannot begin at a tensor

        def summed(points: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            answers = function(points, condition, image)
            return answers[0].sum(), answers

        try:
            gradient, (_, answers) = torch.func.grad_and_value(summed, has_aux=True)(points)
        except RuntimeError as error:
            if "setup_context" not in str(error):  # of torch's own functions around our operators
                raise
            raise RuntimeError(
                f"{type(field).__name__}.sdf_and_gradient: torch.func cannot differentiate the operators of this "
                "field; call it outside, with the points of all in one batch and their `image` indices"
            ) from error
        return answers, gradient
    create_graph = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        points, condition, image = map_tensors(ordinary, (points, condition, image))
        own = not points.requires_grad
        if own:
            points = points.detach().requires_grad_()
        copies: dict[str, Tensor] = {
            f"field.{name}": nn.Parameter(value.clone(), False)
            for name, value in field.named_parameters()
            if value.is_inference()
        }
        copies |= {f"field.{name}": value.clone() for name, value in field.named_buffers() if value.is_inference()}
        if copies:
            answers = functional_call(_Call(field, function), copies, (points, condition, image))
        else:
            answers = function(points, condition, image)
        create_graph = create_graph and not (own and _starts_from(answers, points))
        (gradient,) = torch.autograd.grad(answers[0].sum(), points, create_graph=create_graph, retain_graph=True)
    return (answers if create_graph else tuple(answer.detach() for answer in answers)), gradient


def _starts_from(answers: tuple[Tensor, ...], leaf: Tensor) -> bool:
    """Whether the graph of the answers starts from this leaf alone."""
    waiting = [answer.grad_fn for answer in answers if answer.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if getattr(node, "variable", leaf) is not leaf:
            return False
        following = {parent for parent, _ in node.next_functions if parent is not None} - seen
        seen |= following
        waiting += following
    return True


class _Call(nn.Module):
    """A function of a field's, for `functional_call`."""

    def __init__(self, field: nn.Module, function: Callable[..., tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.field, self.function = field, function

    def forward(self, *given: Any) -> tuple[Tensor, ...]:
        return self.function(*given)


def ordinary(tensor: Tensor) -> Tensor:
    """The same outside of inference mode, whose tensors autograd does not take."""
    return tensor.clone() if tensor.is_inference() else tensor


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The same tensor, sequence, dictionary or dataclass with `function` of each tensor in it."""
    if isinstance(value, Tensor):
        return function(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        members = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **map_tensors(function, members))
    if isinstance(value, dict):
        return {key: map_tensors(function, member) for key, member in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(function, member) for member in value))
    if isinstance(value, (list, tuple)):
        return type(value)(map_tensors(function, member) for member in value)
    return value
