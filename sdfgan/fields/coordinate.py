"""One shape as a network of coordinates: plain, of encoded coordinates, of a hash grid's features, or sine layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfgan import ops
from sdfgan.checks import check_whole
from sdfgan.fields.base import Field
from sdfgan.fields.film_siren import FilmSirenSDF
from sdfgan.fields.small_mlp import can_fuse, fused_layers

_SHARPNESS = 100.0  # of softplus: near ReLU at the scale of a unit ball, as in IGR (Gropp et al. 2020)
_OMEGA = 30.0  # of sine layers (Sitzmann et al. 2020)
_LEAK = 0.01  # slope of leaky-relu
_SLOPE_QUANTILE = 0.999


# By their names fields that have them can be pickled.
def _leaky_relu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, _LEAK)


def _softplus(x: Tensor) -> Tensor:
    return F.softplus(x, beta=_SHARPNESS)


def _sine(x: Tensor) -> Tensor:
    return torch.sin(_OMEGA * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky-relu": _leaky_relu,
    "softplus": _softplus,
    "siren": _sine,
}
_FUSED = {"relu": (False, 0.0), "leaky-relu": (False, _LEAK), "siren": (True, _OMEGA)}  # as `ops.perceptron` has them
INITS: dict[str, Callable[[Tensor], Any]] = {
    "he_uniform": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    "he_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
}


class Perceptron(nn.Module):
    """Linear layers with an activation between: [N, inputs] -> [N].

    Args:
        widths: units of the hidden layers, at least one layer.
        activation: one of `ACTIVATIONS`; "siren" has its own initialisation (Sitzmann et al. 2020, section 3.2).
        init: one of `INITS`, for the others; biases start at zero.
    """

    def __init__(self, inputs: int, widths: Sequence[int], activation: str = "relu", init: str = "he_uniform") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"Perceptron: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        if init not in INITS:
            raise ValueError(f"Perceptron: init must be one of {', '.join(INITS)}, got {init!r}")
        if isinstance(widths, int):
            raise TypeError(f"Perceptron: widths must be a sequence, one for each hidden layer, got {widths}")
        if not widths or min(widths) < 1:
            raise ValueError(f"Perceptron: widths must be at least one positive number, got {list(widths)}")
        sizes = [inputs, *widths, 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.activation = ACTIVATIONS[activation]
        self.sizes, self._fused = sizes, _FUSED.get(activation)
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            if activation == "siren":
                bound = 1 / layer.in_features if index == 0 else math.sqrt(6 / layer.in_features) / _OMEGA
                nn.init.uniform_(layer.weight, -bound, bound)
            else:
                INITS[init](layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N] from [N, inputs]. Without a graph, on a CPU, by the fused kernel; softplus by layers.

        With a graph, of one output, torch's layers take less time: they keep the features.
        """
        if self._fused is not None and not torch.is_grad_enabled() and can_fuse(x):
            sine, constant = self._fused
            return fused_layers(x, self.layers, sine, constant)[:, 0]
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)[:, 0]


class PositionalEncoding(nn.Module):
    """Points [N, 3] and their sines and cosines at `octaves` frequencies (`ops.positional_encoding`)."""

    def __init__(self, octaves: int) -> None:
        super().__init__()
        check_whole("PositionalEncoding", 0, octaves=octaves)
        self.octaves, self.width = octaves, 3 + 6 * octaves

    def forward(self, points: Tensor) -> Tensor:
        """[N, 3 + 6 octaves]."""
        return ops.positional_encoding(points, self.octaves, include_input=True)


class FixedLatent(Field):
    """A FiLM-SIREN of one shape: the latent is a parameter, and the fused tracers take it as they take a family."""

    def __init__(self, family: FilmSirenSDF) -> None:
        super().__init__()
        if not isinstance(family, FilmSirenSDF):
            raise TypeError(f"FixedLatent: family must be a FilmSirenSDF, got {type(family).__name__}")
        self.family = family
        self.latent = nn.Parameter(torch.randn(1, family.latent_size) / math.sqrt(family.latent_size))

    def condition(self, latents: Tensor | None) -> Any:
        """That of its own latent; `latents` must be None."""
        if latents is not None:
            raise ValueError(f"FixedLatent.condition: the latent is its own, got {list(latents.shape)}")
        return self.family.condition(self.latent)

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """See `Field.sdf`; without a condition, its own."""
        return self.family.sdf(points, self.condition(None) if condition is None else condition, image)

    def sdf_and_gradient(
        self, points: Tensor, condition: Any = None, image: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `FilmSirenSDF.sdf_and_gradient`."""
        return self.family.sdf_and_gradient(points, self.condition(None) if condition is None else condition, image)

    def forward(self, points: Tensor, latents: Tensor | None = None) -> Tensor:
        """[N] at points [N, 3]."""
        return self.sdf(points)


class Invertible(nn.Module):
    """A map [N, D] -> [N, D] that can be undone."""

    def inverse(self, y: Tensor) -> Tensor:
        """Undo `forward`."""
        raise NotImplementedError


class CoordinateSDF(Field):
    """One shape: sdf(x) = unscale(network(encoding(scale(x)))).

    Args:
        network: [N, W] -> [N]; a `FixedLatent` makes the field one that the fused tracers take.
        encoding: points [N, 3] -> [N, W]; None: the points themselves.
        input_scaler: a map of points [N, 3] to themselves.
        target_scaler: a map of distances [N, 1] with an `inverse`; the network's outputs are in its range.
        extent: radius of the ball around the origin that holds the surface.
        unsigned: the distance is that to a sheet: the absolute value of the above. See `shell`.
    """

    slope: Tensor

    def __init__(
        self,
        network: nn.Module,
        encoding: nn.Module | None = None,
        input_scaler: nn.Module | None = None,
        target_scaler: Invertible | None = None,
        extent: float = math.sqrt(3),
        unsigned: bool = False,
    ) -> None:
        super().__init__()
        self.unsigned = unsigned
        self.net, self.encoding = network, encoding
        self.input_scaler, self.target_scaler = input_scaler, target_scaler
        self._extent = extent
        self.register_buffer("slope", torch.ones(()))  # the gradient's length that nearly nowhere is exceeded

    @property
    def extent(self) -> float:
        """Radius of the ball that holds the surface."""
        return self._extent

    @property
    def lipschitz(self) -> float:  # type: ignore[override]
        """As `measure_slope` found it."""
        return max(self.slope.item(), 1.0)

    @property
    def fused(self) -> FixedLatent | None:
        """The network, if it is all there is and the fused kernels take it."""
        plain = not self.unsigned and self.encoding is None and self.input_scaler is None and self.target_scaler is None
        return self.net if plain and isinstance(self.net, FixedLatent) else None

    def condition(self, latents: Tensor | None) -> Any:
        """None, but for a FiLM-SIREN the condition of its latent."""
        if latents is not None:
            raise ValueError(f"CoordinateSDF.condition: one shape has no latents, got {list(latents.shape)}")
        return self.fused.condition(None) if self.fused is not None else None

    def network(self, condition: Any, precision: str | None = "fp32") -> ops.FilmSirenNetwork | None:
        """See `Field.network`."""
        return self.fused.family.network(condition, precision) if self.fused is not None else None

    def raw(self, points: Tensor) -> Tensor:
        """What the network says [N] at points [N, 3], in the range of the target scaler."""
        x = points if self.input_scaler is None else self.input_scaler(points)
        return self.net(x if self.encoding is None else self.encoding(x))

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """Signed distances [N]; see `Field.sdf`."""
        if self.fused is not None:
            return self.fused.sdf(points, condition, image)
        value = self.raw(points)
        value = value if self.target_scaler is None else self.target_scaler.inverse(value[:, None])[:, 0]
        return value.abs() if self.unsigned else value

    def sdf_and_gradient(
        self, points: Tensor, condition: Any = None, image: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Field.sdf_and_gradient`."""
        if self.fused is not None:
            return self.fused.sdf_and_gradient(points, condition, image)
        return super().sdf_and_gradient(points, condition, image)

    def measure_slope(self, points: Tensor) -> None:
        """Set `slope` from the gradients at points [N, 3] near the surface, so that marches take safe steps."""
        with torch.no_grad():
            _, gradient = self.sdf_and_gradient(points)
            self.slope.copy_(gradient.norm(dim=1).quantile(_SLOPE_QUANTILE).clamp(min=1e-6))

    def shell(self, half_thickness: float = 0.01) -> Shell:
        """Of an unsigned field, what can be rendered: all that is nearer than `half_thickness` to the sheet.

        Half of the default shows holes where a small network is off by as much.
        """
        return Shell(self, half_thickness)


class Shell(Field):
    """A sheet as a thin solid: an unsigned distance less half a thickness, in units of the field."""

    def __init__(self, sheet: CoordinateSDF, half_thickness: float) -> None:
        super().__init__()
        if not sheet.unsigned:
            raise ValueError("Shell: the field must be unsigned; a signed one is rendered as it is")
        if not 0 < half_thickness < math.inf:
            raise ValueError(f"Shell: half_thickness must be positive, got {half_thickness}")
        self.sheet, self.half_thickness = sheet, half_thickness

    @property
    def extent(self) -> float:
        """Radius of the ball that holds the surface."""
        return self.sheet.extent + self.half_thickness

    @property
    def lipschitz(self) -> float:  # type: ignore[override]
        """That of the sheet's distance."""
        return self.sheet.lipschitz

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """See `Field.sdf`."""
        return self.sheet.sdf(points) - self.half_thickness
