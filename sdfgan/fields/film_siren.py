"""FiLM-SIREN signed-distance fields: one small sine network whose layers are scaled and shifted by a latent.

A layer is sin(omega (gamma (W x + b)) + beta) as in pi-GAN (Chan et al. 2021, arXiv:2012.00926); gamma and beta come
from a mapping network that runs once per image. A shared trunk feeds an SDF branch and a texture branch.
"""

from __future__ import annotations

import functools
import math
import os
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sdfgan import _C, ops
from sdfgan.checks import check_whole
from sdfgan.conditions import Condition
from sdfgan.fields.base import Field, FieldSample, linear_layers
from sdfgan.ops.film_siren import Mirror, check_mirror, mirrored, named_tensors, through_mirror

_PRIOR_SOFTNESS = 0.01  # under the root of the sphere prior, so that it is smooth at the origin
_MIN_ROWS = 8
_PALETTE = 4  # colours of a shape: one more than the texture branch has outputs
COLOR_SPACES = ("rgb", "hsv", "palette")


@dataclass(frozen=True)
class FilmCondition(Condition):
    """A batch of latents, as the network sees it: layer i is sin(scales[:, i] * (W_i x) + shifts[:, i]).

    scales and shifts are [B, layers, width], for the layers of trunk, SDF and texture in turn; base_color [B, P, 3],
    before the sigmoid, is the colour of the whole shape that the texture varies (P = 1), or the colours of its palette
    (P = 4). It is of the weights it was made from: make a new one after they have changed. `packs` are these weights
    as the kernels take them, by precision.
    """

    scales: Tensor
    shifts: Tensor
    base_color: Tensor
    packs: dict[str, _Pack] = field(default_factory=dict, repr=False)


class _Pack(NamedTuple):
    """A network of no images, with its graph and without, and the parameters it was packed from, with their versions
    then."""

    network: ops.FilmSirenNetwork
    detached: ops.FilmSirenNetwork
    parameters: tuple[Tensor, ...]
    versions: list[tuple[int, int, int, bool]]


class _Groups(NamedTuple):
    """Where flat points go when the points of each image are laid out as rows of [B, P, ...]."""

    image: Tensor
    slot: Tensor


class FilmSirenSDF(Field):
    """A family of coloured shapes: latent [latent_size (+ texture_latent_size)] -> signed distance and albedo.

    sdf(x) = sqrt(|x|^2 + 0.01) - prior_radius + bias + net(x): the sphere is part of the formula and the network starts
    near zero, so an untrained field is a sphere with a gradient of length about one and needs no preconditioning.
    The texture branch varies a base colour that comes from the latent alone, so that solids start out in one colour.

    Args:
        width: units per sine layer.
        trunk_layers, sdf_layers, texture_layers: sine layers of the trunk and of each branch (all at least 1).
        latent_size: length of the latent of shape and, unless `texture_latent_size` is given, of texture.
        texture_latent_size: 0, or the length of a second latent, appended to the first, that alone drives the texture
            branch (as in GRAF, Schwarz et al. 2020).
        omega_first, omega_hidden, omega_texture: frequencies of the first layer, of the other trunk and SDF layers,
            and of the texture layers. Low texture frequencies keep the colour of a part uniform.
        color_space: "rgb", "hsv" or "palette": what the three outputs of the texture branch mean. With "palette" the
            latent gives four colours, and they are the log-odds of the second to fourth against the first, by which
            the colours are mixed: a shape has few colours, however its texture varies.
        prior_radius: radius of the sphere that the untrained field represents.
        mirror: the plane about which all shapes and their colours are alike (`ops.Mirror`), or None.

    Where gradients are enabled, values come from `ops.film_siren_sample` and differentiate once if neither forward mode
    nor a `torch.func` transform is active and: on a CPU, if they are float32 or float64, the width is a multiple of 16
    and autocast is off; on CUDA, if they are float32 and the width is at most 256. Under autocast, products on CUDA are
    then those of float16 matrices, on GPUs that have them (sm_80), and torch's on others. Else, and wherever
    `native_gradients` is False, values come from torch's own operations: slower, with a graph that grows with the
    points and differentiates to any order, also with `is_grads_batched`. Where `native_gradients` is None, the
    environment variable SDFGAN_CUDA_GRADIENT chooses on CUDA: "native" (unless set) or "torch"; read once.
    """

    mixed_precision = True
    native_gradients: bool | None = None

    def __init__(
        self,
        width: int = 64,
        trunk_layers: int = 3,
        sdf_layers: int = 1,
        texture_layers: int = 1,
        latent_size: int = 64,
        texture_latent_size: int = 0,
        mapping_width: int = 128,
        mapping_layers: int = 2,
        omega_first: float = 5.0,
        omega_hidden: float = 10.0,
        omega_texture: float = 3.0,
        color_space: str = "rgb",
        prior_radius: float = 0.5,
        mirror: Mirror | None = None,
    ) -> None:
        super().__init__()
        layers = {"trunk_layers": trunk_layers, "sdf_layers": sdf_layers, "texture_layers": texture_layers}
        check_whole("FilmSirenSDF", 1, width=width, **layers, latent_size=latent_size, mapping_width=mapping_width)
        check_whole("FilmSirenSDF", 0, texture_latent_size=texture_latent_size)
        if color_space not in COLOR_SPACES:
            raise ValueError(f"FilmSirenSDF: color_space must be one of {', '.join(COLOR_SPACES)}, got {color_space!r}")
        self.width = width
        self.trunk_layers, self.sdf_layers, self.texture_layers = trunk_layers, sdf_layers, texture_layers
        self.geometry_latent_size, self.texture_latent_size = latent_size, texture_latent_size
        self.latent_size = latent_size + texture_latent_size
        self.color_space = color_space
        self.prior_radius = prior_radius
        check_mirror(mirror)
        self.mirror = mirror

        geometry_layers = trunk_layers + sdf_layers
        self.omegas = [omega_first] + [omega_hidden] * (geometry_layers - 1) + [omega_texture] * texture_layers
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for index in range(geometry_layers + texture_layers):
            inputs = 3 if index == 0 else width
            # Sitzmann et al. 2020: the first layer spans the frequencies, hidden ones keep unit variance.
            bound = 1 / 3 if index == 0 else math.sqrt(6 / width) / omega_hidden
            shift = math.pi / omega_first if index == 0 else 0.1
            self.weights.append(nn.Parameter(torch.empty(width, inputs).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(width).uniform_(-shift, shift)))
        self.sdf_head = nn.Parameter(torch.randn(width) * 0.01 / math.sqrt(width))
        self.sdf_bias = nn.Parameter(torch.zeros(()))
        self.texture_head = nn.Parameter(torch.randn(3, width) * 0.3 / math.sqrt(width))
        self.texture_bias = nn.Parameter(torch.zeros(3))

        geometry_film = 2 * width * geometry_layers
        self._base_colors = _PALETTE if color_space == "palette" else 1
        texture_film = 2 * width * texture_layers + 3 * self._base_colors
        if texture_latent_size:
            self.mapping = _mapping_network(latent_size, mapping_width, mapping_layers, geometry_film)
            self.texture_mapping = _mapping_network(texture_latent_size, mapping_width, mapping_layers, texture_film)
        else:
            self.mapping = _mapping_network(latent_size, mapping_width, mapping_layers, geometry_film + texture_film)

    def condition(self, latents: Tensor | None) -> FilmCondition:
        """FiLM of latents [B, latent_size], folded into the layers. Differentiable; never call it per point.

        In the network's own precision, also under autocast.
        """
        self._check_latents(latents)
        assert latents is not None
        with torch.autocast(latents.device.type, enabled=False):
            return self._condition(latents)

    def _condition(self, latents: Tensor) -> FilmCondition:
        batch = len(latents)
        film = _mapped(self.mapping, latents[:, : self.geometry_latent_size])
        if self.texture_latent_size:
            texture = _mapped(self.texture_mapping, latents[:, self.geometry_latent_size :])
            film = torch.cat([film, texture], dim=1)
        film, colors = film.tensor_split((-3 * self._base_colors,), 1)
        base_color = 4 * colors.view(batch, self._base_colors, 3)
        film = film.view(batch, len(self.omegas), 2, self.width)
        omegas = torch.stack([film.new_full((), omega) for omega in self.omegas])  # a copy would wait for the device
        scales = omegas[:, None] * (1 + 0.5 * film[:, :, 0])  # [B, layers, width]
        shifts = scales * torch.stack(tuple(self.biases)) + 1.5 * film[:, :, 1]
        return FilmCondition(scales, shifts, base_color)

    def mixed(self, shapes: FilmCondition, colours: FilmCondition) -> FilmCondition:
        """The shapes [B] of one condition with the colours [B] of another: style mixing (Karras et al. 2019), at the
        layers of the texture branch and its base colour. Differentiable."""
        geometry = self.trunk_layers + self.sdf_layers
        scales, shifts = (
            torch.cat([own[:, :geometry], other[:, geometry:]], 1)
            for own, other in ((shapes.scales, colours.scales), (shapes.shifts, colours.shifts))
        )
        return FilmCondition(scales, shifts, colours.base_color)

    @torch.no_grad()
    def network(self, condition: Any, precision: str | None = "fp32") -> ops.FilmSirenNetwork | None:
        """See `Field.network`: on a CPU, for widths that are multiples of 16; on CUDA, up to 256 in float32."""
        width = self._native_width()
        if precision is None:
            fast = self.sdf_head.is_cuda and torch.cuda.get_device_capability(self.sdf_head.device) >= (8, 0)
            precision = "fp16" if fast else "fp32"
        if width is None or precision == ("bf16" if self.sdf_head.is_cuda else "fp16"):
            return None
        network = self._with_film(self._packed(condition.packs, precision, width).detached, condition, width)
        return network._replace(scale=network.scale.detach(), shift=network.shift.detach())

    @property
    def has_kernels(self) -> bool:
        """Whether `ops.film_siren` and its gradients compute this field where it is, in its own precision."""
        return self._native_width() is not None and self.native_gradients is not False

    def _native_width(self) -> int | None:
        """The width of the kernels' network: on CUDA the next one they know, with units that do nothing."""
        if not self.sdf_head.is_cuda:
            return None if self.width % 16 or self.sdf_head.dtype.itemsize < 4 else self.width
        if not _C.cuda or self.sdf_head.dtype != torch.float32:
            return None
        return min((width for width in ops.CUDA_WIDTHS if width >= self.width), default=None)

    def _packed(self, packs: dict[str, _Pack], precision: str, width: int) -> _Pack:
        """The network of no images, kept in `packs` until a parameter is replaced or written to.

        A condition's own cache, not the field's: fused optimisers write to parameters without counting it.
        """
        used = (*self.weights, self.sdf_head, self.sdf_bias, self.texture_head)
        versions = [(id(p), p.data_ptr(), 0 if p.is_inference() else p._version, p.requires_grad) for p in used]
        versions.append((0, 0, 0, torch.is_inference_mode_enabled()))  # what is made there has no graph elsewhere
        if precision not in packs or packs[precision].versions != versions:
            with torch.enable_grad():
                network = self._pack(precision, width)
            tensors: dict[str, Any] = {name: tensor.detach() for name, tensor in named_tensors(network).items()}
            detached = network._replace(**tensors)
            packs[precision] = _Pack(network, detached, used, versions)
        return packs[precision]

    def _pack(self, precision: str, width: int) -> ops.FilmSirenNetwork:
        more, on_cuda = width - self.width, self.sdf_head.is_cuda  # units that do nothing
        matrices = _padded(torch.stack(tuple(self.weights[1:])), 0, more, 0, more)
        fixed = matrices.detach()
        if on_cuda:
            hidden, transposed = ops.pack_matrices(fixed, precision, "cuda"), matrices
        else:
            hidden = ops.pack_matrices(matrices if precision == "fp32" else fixed, precision)
            transposed = ops.pack_matrices(fixed.transpose(1, 2).contiguous(), precision)
        no_images = self.sdf_head.new_empty(0, len(self.omegas), width)
        return ops.FilmSirenNetwork(
            _padded(self.weights[0], 0, 0, 0, more),
            hidden,
            transposed,
            _padded(self.sdf_head, 0, more),
            _padded(self.texture_head, 0, more),
            torch.stack((torch.full_like(self.sdf_bias, _PRIOR_SOFTNESS), self.sdf_bias - self.prior_radius)),
            scale=no_images,
            shift=no_images,
            layers=(self.trunk_layers, self.sdf_layers, self.texture_layers),
        )

    def _for_kernels(self, points: Tensor, condition: FilmCondition) -> ops.FilmSirenNetwork | None:
        """The network for `ops.film_siren` and `film_siren_sample` at these points, with a graph where gradients are
        enabled; None where torch's operations answer."""
        if torch.autograd.forward_ad._current_level >= 0:  # the kernels know no tangents
            return None
        if not torch.is_grad_enabled():
            return self.network(condition)
        native, width = self.native_gradients, self._native_width()
        if native is None:
            native = not points.is_cuda or _native_on_cuda()
        if not native or width is None or torch._C._are_functorch_transforms_active():
            return None
        shortened = torch.is_autocast_enabled(points.device.type)
        if shortened and not (points.is_cuda and torch.cuda.get_device_capability(points.device) >= (8, 0)):
            return None
        precision = "fp16" if shortened else "fp32"
        # What is kept is used for one backward pass, of a condition with a graph, and not after a step of an optimiser.
        once = torch.compiler.is_compiling() or condition.scales.grad_fn is None
        packed = self._pack(precision, width) if once else self._packed(condition.packs, precision, width).network
        return self._with_film(packed, condition, width)

    def _with_film(self, network: ops.FilmSirenNetwork, condition: FilmCondition, width: int) -> ops.FilmSirenNetwork:
        scale, shift = (
            _padded(film, 0, width - self.width).contiguous() for film in (condition.scales, condition.shifts)
        )
        return network._replace(scale=scale, shift=shift, mirror=self.mirror)

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """Signed distances [N]; see `Field.sdf`."""
        if (network := self._for_kernels(points, condition)) is not None:
            return ops.film_siren(points.contiguous(), _rows(points, condition, image), network)
        if not torch.is_grad_enabled() and points.is_cuda:
            return self._sdf_without_counts(points, condition, _rows(points, condition, image))
        grouped, groups, condition = _group(mirrored(points, self.mirror), image, condition)
        features = grouped
        for index in range(self.trunk_layers + self.sdf_layers):
            features = self._layer(condition, index, features)[0].sin()
        return _ungroup(_dot(features, self.sdf_head) + self._prior(grouped), groups)

    def sdf_variation(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """Zeros [N] with the gradient of `sdf`, evaluated when it is wanted."""
        if (network := self._for_kernels(points, condition)) is not None:
            return ops.film_siren_variation(points.contiguous(), _rows(points, condition, image), network)
        return super().sdf_variation(points, condition, image)

    def sdf_and_gradient(
        self, points: Tensor, condition: Any = None, image: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Distances [N] and gradients [N, 3] by an explicit adjoint pass, whose graph is of first order."""
        if (network := self._for_kernels(points, condition)) is not None:
            return ops.film_siren_sample(points.contiguous(), _rows(points, condition, image), network)[:2]
        grouped, groups, condition = _group(mirrored(points, self.mirror), image, condition)
        value, gradient, _ = self._geometry(grouped, condition)
        return _ungroup(value, groups), through_mirror(_ungroup(gradient, groups), points, self.mirror)

    def rgb(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """Albedo [N, 3]; see `Field.rgb`."""
        if self._for_kernels(points, condition) is not None:
            return self.evaluate(points, condition, image).rgb
        grouped, groups, condition = _group(mirrored(points, self.mirror), image, condition)
        trunk = grouped
        for index in range(self.trunk_layers):
            trunk = self._layer(condition, index, trunk)[0].sin()
        return _ungroup(self._texture(trunk, condition), groups)

    def evaluate(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> FieldSample:
        """Distance, gradient and albedo at once."""
        if (network := self._for_kernels(points, condition)) is not None:
            rows = _rows(points, condition, image)
            value, gradient, texture = ops.film_siren_sample(points.contiguous(), rows, network)
            return FieldSample(value, gradient, self._colour(texture, condition.base_color.index_select(0, rows)))
        grouped, groups, condition = _group(mirrored(points, self.mirror), image, condition)
        value, gradient, trunk = self._geometry(grouped, condition)
        rgb = self._texture(trunk, condition)
        gradient = through_mirror(_ungroup(gradient, groups), points, self.mirror)
        return FieldSample(_ungroup(value, groups), gradient, _ungroup(rgb, groups))

    def _sdf_without_counts(self, points: Tensor, condition: FilmCondition, rows: Tensor) -> Tensor:
        """FiLM gathered for each point: more memory, but the host need not know how many points an image has."""
        features = points = mirrored(points, self.mirror)
        for index in range(self.trunk_layers + self.sdf_layers):
            phases = condition.scales[:, index][rows] * (features @ self.weights[index].T)
            features = torch.sin(phases + condition.shifts[:, index][rows])
        return features @ self.sdf_head + self._prior(points)

    def _layer(self, condition: FilmCondition, index: int, features: Tensor) -> tuple[Tensor, Tensor]:
        """Phases [B, P, width] of a layer, before the sine, and its weights with FiLM folded in, [B, width, inputs].

        Under autocast only products are short, and not those of the first layer: a rounded phase is a moved surface.
        """
        weight = condition.scales[:, index, :, None] * self.weights[index]
        shift = condition.shifts[:, index, None]
        if not torch.is_autocast_enabled(features.device.type):
            return torch.baddbmm(shift, features, weight.transpose(1, 2)), weight
        with torch.autocast(features.device.type, enabled=index > 0):
            return torch.bmm(features, weight.transpose(1, 2)).to(shift.dtype) + shift, weight

    def _prior(self, points: Tensor) -> Tensor:
        return torch.sqrt(points.square().sum(-1) + _PRIOR_SOFTNESS) - self.prior_radius + self.sdf_bias

    def _geometry(self, points: Tensor, condition: FilmCondition) -> tuple[Tensor, Tensor, Tensor]:
        """Value [B, P], gradient [B, P, 3] and trunk features [B, P, width] at points [B, P, 3]."""
        layers = self.trunk_layers + self.sdf_layers
        phases, weights, features, trunk = [], [], points, points
        for index in range(layers):
            phase, weight = self._layer(condition, index, features)
            phases.append(phase)
            weights.append(weight)
            features = torch.sin(phase)
            if index == self.trunk_layers - 1:
                trunk = features
        value = _dot(features, self.sdf_head) + self._prior(points)
        adjoint = self.sdf_head * torch.cos(phases[-1])
        for index in range(layers - 1, 0, -1):
            adjoint = torch.bmm(adjoint, weights[index]).to(points.dtype) * torch.cos(phases[index - 1])
        radius = torch.sqrt(points.square().sum(-1, keepdim=True) + _PRIOR_SOFTNESS)
        with torch.autocast(points.device.type, enabled=False):
            return value, torch.bmm(adjoint, weights[0]) + points / radius, trunk

    def _texture(self, trunk: Tensor, condition: FilmCondition) -> Tensor:
        features = trunk
        for index in range(self.trunk_layers + self.sdf_layers, len(self.omegas)):
            features = self._layer(condition, index, features)[0].sin()
        return self._colour(_dot(features, self.texture_head.t()), condition.base_color[:, None])

    def _colour(self, texture: Tensor, base_color: Tensor) -> Tensor:
        """Albedo [..., 3] of outputs [..., 3] and base colours that broadcast to [..., P, 3]."""
        if self.color_space == "palette":
            odds = nn.functional.pad(4 * texture + self.texture_bias, (1, 0))
            return (torch.softmax(odds, -1)[..., None] * torch.sigmoid(base_color)).sum(-2)
        color = torch.sigmoid(2 * texture + self.texture_bias + base_color[..., 0, :])
        return hsv_to_rgb(color) if self.color_space == "hsv" else color


@functools.cache
def _native_on_cuda() -> bool:
    """What SDFGAN_CUDA_GRADIENT says. ValueError for what it cannot say."""
    value = os.environ.get("SDFGAN_CUDA_GRADIENT", "native")
    if value not in ("native", "torch"):
        raise ValueError(f"SDFGAN_CUDA_GRADIENT must be 'native' or 'torch', got {value!r}")
    return value == "native"


def _padded(values: Tensor, *sizes: int) -> Tensor:
    """As `torch.nn.functional.pad` with zeros, but what needs none stays as it is."""
    return nn.functional.pad(values, sizes) if any(sizes) else values


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    """RGB [..., 3] of hue, saturation and value [..., 3], all in [0, 1] (Smith 1978). Differentiable."""
    hue, saturation, value = hsv.unbind(-1)
    channels = []
    for offset in (5.0, 3.0, 1.0):
        k = (offset + 6 * hue) % 6
        channels.append(value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, dim=-1)


def _mapping_network(inputs: int, width: int, layers: int, outputs: int) -> nn.Sequential:
    network = linear_layers(inputs, width, layers, outputs, lambda: nn.LeakyReLU(0.2))
    for module in network:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, 0.2)
            nn.init.zeros_(module.bias)
    with torch.no_grad():
        network[-1].get_parameter("weight").mul_(0.25)
    return network


def _mapped(network: nn.Module, latents: Tensor) -> Tensor:
    """network(latents [B, L]), the same for a latent in any batch: CPUs sum products of fewer rows in another order."""
    missing = -len(latents) % _MIN_ROWS
    return network(nn.functional.pad(latents, (0, 0, 0, missing)))[: len(latents)] if missing else network(latents)


def _rows(points: Tensor, condition: FilmCondition, image: Tensor | None) -> Tensor:
    if image is None:
        _check_one_image(len(condition))
        return torch.zeros(len(points), dtype=torch.int64, device=points.device)
    return image.contiguous()


def _dot(features: Tensor, head: Tensor) -> Tensor:
    """A product that autocast does not shorten."""
    with torch.autocast(features.device.type, enabled=False):
        return features @ head


def _group(
    points: Tensor, image: Tensor | None, condition: FilmCondition
) -> tuple[Tensor, _Groups | None, FilmCondition]:
    """Points [N, 3] laid out as [B, P, 3], padded with zeros where images have fewer than P points.

    B counts from the first image that has points to the last one; the condition is that of these.
    """
    if image is None:
        _check_one_image(len(condition))
        return points[None], None, condition
    counts = image.new_zeros(len(condition)).index_add(0, image, torch.ones_like(image))
    first, last, size = 0, len(condition) - 1, 0
    if len(image):  # all in one answer, for the host waits for it
        first, last, size = torch.stack([image[0], image[-1], counts.max()]).tolist()
    own, counts, condition = image - first, counts[first : last + 1], condition[first : last + 1]
    batch = len(condition)
    slot = torch.arange(len(own), device=own.device) - (counts.cumsum(0) - counts)[own]
    padded = points.new_zeros(batch, size, 3).index_put((own, slot), points)
    return padded, _Groups(own, slot), condition


def _check_one_image(batch: int) -> None:
    if batch != 1:
        raise ValueError(f"FilmSirenSDF: image indices are needed to choose among {batch} latents")


def _ungroup(values: Tensor, groups: _Groups | None) -> Tensor:
    return values[0] if groups is None else values[groups.image, groups.slot]
