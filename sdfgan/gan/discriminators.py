"""Networks that tell images of shapes from renderings. All give a `Verdict` on images [B, C, R, R] in [0, 1].

lean         ours: strided convolutions beside skip connections, minibatch stddev; the fastest
small        the same with two convolutions in each block, at the resolution before its halving
residual     that of dfr: 1x1 stem, residual blocks with average pooling
progressive  pi-GAN's ProgressiveEncoder: CoordConv residual blocks with average pooling; new resolutions fade in
strided      pi-GAN's CCSEncoder: the same, halving by strided convolutions
stylegan2    Karras et al. 2020: equalised learning rates, blurred halvings, minibatch stddev
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from sdfgan.gan.losses import sphere_logit

_SLOPE = 0.2
_STDDEV_GROUP = 4
_SPHERE_FEATURES = 128
_SPHERE_SCALE = 0.1  # of a Sphere GAN's features, so that they begin on the far half of the sphere
_SMALLEST = 4  # side of the features that the last layers see


class Verdict(NamedTuple):
    """What a discriminator says about B images."""

    logit: Tensor  # [B]: the higher, the more real
    latent: Tensor  # [B, L]: its guess of the latent; L = 0 unless asked for
    direction: Tensor  # [B, 3]: its guess of the direction towards the camera; [B, 0] unless asked for


class Discriminator(nn.Module):
    """What all discriminators share: the resolutions they take, and how features become a verdict.

    Args:
        resolutions: sides of the images, powers of two, in the order in which training meets them. Only
            `progressive` and `strided` take more than one.
        channels: of the first layer at the highest resolution; doubled with each halving, up to `max_channels`.
        image_channels: 4 for RGBA, 3 for RGB.
        latent_size: length of the latent to guess; 0: none.
        guess_direction: whether to guess the direction towards the camera.
        sphere: the logit is that of a Sphere GAN.
    """

    grows = False

    def __init__(
        self,
        resolutions: Sequence[int],
        channels: int = 32,
        max_channels: int = 512,
        image_channels: int = 4,
        latent_size: int = 0,
        guess_direction: bool = False,
        sphere: bool = False,
    ) -> None:
        super().__init__()
        if len(set(resolutions)) > 1 and not self.grows:
            raise ValueError(f"{type(self).__name__}: takes one resolution, got {sorted(set(resolutions))}")
        self.resolution = max(resolutions)
        self.image_channels = image_channels
        levels = int(math.log2(self.resolution // _SMALLEST))
        self.widths = [min(channels * 2**level, max_channels) for level in range(levels + 1)]  # at R, R/2, ... 4
        self._sphere = sphere
        self._guesses = (_SPHERE_FEATURES if sphere else 1, latent_size, 3 if guess_direction else 0)
        self.outputs = sum(self._guesses)

    def features(self, images: Tensor, fade: float, sets: int) -> Tensor:
        """[B, outputs] of images in [-1, 1]."""
        raise NotImplementedError

    def forward(self, images: Tensor, fade: float = 1.0, sets: int = 1) -> Verdict:
        """`fade` in [0, 1] is the share of a newly met resolution; at 0 images are seen as at half of it. The images
        are so many `sets` of equal size, one behind the other, and are compared with those of their own set alone."""
        if images.shape[2] > self.resolution or images.shape[1] != self.image_channels:
            wanted = [len(images), self.image_channels, self.resolution, self.resolution]
            raise ValueError(f"{type(self).__name__}: images must be {wanted}, got {list(images.shape)}")
        outputs = self.features((images * 2 - 1).contiguous(memory_format=torch.channels_last), fade, sets).float()
        logit, latent, direction = outputs.split(self._guesses, 1)
        return Verdict(sphere_logit(_SPHERE_SCALE * logit) if self._sphere else logit[:, 0], latent, direction)

    def _initialise(self, last: nn.Module, scale: float = 0.3) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, _SLOPE)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            assert isinstance(last.weight, Tensor)
            last.weight *= scale
        # A fifth faster on a CPU. torch has this overload, its stubs do not.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


# ------------------------------------------------------------------------------------------------------------- blocks


class ResidualDown(nn.Module):
    """Two 3x3 convolutions and a halving of the image, beside a skip connection."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.second = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.first(x), _SLOPE)
        y = F.leaky_relu(self.second(y), _SLOPE)
        return (F.avg_pool2d(y, 2) + self.skip(F.avg_pool2d(x, 2))) / math.sqrt(2)


class StridedDown(nn.Module):
    """A 4x4 convolution that halves the image, beside a skip connection."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.main = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return (F.leaky_relu(self.main(x), _SLOPE) + self.skip(F.avg_pool2d(x, 2))) / math.sqrt(2)


class CoordConv(nn.Conv2d):
    """A convolution that also sees where it is: x and y in [-1, 1] as two more channels (Liu et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        super().__init__(inputs + 2, outputs, size, stride, padding=size // 2)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        y = torch.linspace(-1, 1, height, device=x.device, dtype=x.dtype)
        column = torch.linspace(-1, 1, width, device=x.device, dtype=x.dtype)
        where = torch.stack((y[:, None].expand(height, width), column.expand(height, width)))
        return super().forward(torch.cat((x, where.expand(len(x), 2, height, width)), 1))


class CoordDown(nn.Module):
    """pi-GAN's residual block: two CoordConvs and a halving, by average pooling or by the second's stride."""

    def __init__(self, inputs: int, outputs: int, strided: bool) -> None:
        super().__init__()
        self.first = CoordConv(inputs, outputs, 3)
        self.second = CoordConv(outputs, outputs, 3, 2 if strided else 1)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.second(F.leaky_relu(self.first(x), _SLOPE)), _SLOPE)
        if y.shape[2] == x.shape[2]:
            y = F.avg_pool2d(y, 2)
        return (y + self.skip(F.avg_pool2d(x, 2))) / math.sqrt(2)


class EqualConv(nn.Module):
    """A convolution whose weights are kept at unit variance and scaled when used (Karras et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, size: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = 1 / math.sqrt(inputs * size**2)

    def forward(self, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.weight * self.scale
        return F.conv2d(x, weight, self.bias, stride, padding=weight.shape[2] // 2)


class EqualLinear(nn.Module):
    """The same for a linear layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias)


class BlurDown(nn.Module):
    """StyleGAN2's residual block: halvings are blurred with [1, 3, 3, 1] so that they do not alias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = EqualConv(inputs, inputs, 3)
        self.second = EqualConv(inputs, outputs, 3)
        self.skip = EqualConv(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = _gained(self.first(x))
        y = _gained(blur_down(self.second(y)))
        return (y + self.skip(blur_down(x))) / math.sqrt(2)


def _gained(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the variance."""
    return F.leaky_relu(x, _SLOPE) * math.sqrt(2)


def blur_down(x: Tensor) -> Tensor:
    """Features [B, C, H, W] blurred with [1, 3, 3, 1] / 8 in both directions and halved."""
    place = torch.arange(4, device=x.device)  # made there: a CUDA graph cannot record a copy of numbers in Python
    taps = (1 + 2 * place.minimum(3 - place)).to(x.dtype) / 8
    channels = x.shape[1]
    kernel = (taps[:, None] * taps).expand(channels, 1, 4, 4)
    return F.conv2d(x, kernel, stride=2, padding=1, groups=channels)


def minibatch_stddev(x: Tensor, sets: int = 1) -> Tensor:
    """How much the images of a group of four differ, as one more channel [B, 1, H, W] (Karras et al. 2018).

    Groups are within each of so many `sets` of images; all of a set that is no multiple of four are one group.
    """
    size, height, width = len(x) // sets, *x.shape[2:]
    group = _STDDEV_GROUP if size % _STDDEV_GROUP == 0 else size
    grouped = x.float().unflatten(0, (sets, group, size // group))  # in half precision 1e-8 is nothing
    variance = (grouped - grouped.mean(1, keepdim=True)).square().mean(1)
    spread = torch.sqrt(variance + 1e-8).mean((2, 3, 4))  # [sets, size / group]
    return spread.to(x.dtype).repeat(1, group).view(-1, 1, 1, 1).expand(-1, 1, height, width)


# ----------------------------------------------------------------------------------------------------------- networks


class Small(Discriminator):
    """A strided stem, residual blocks, minibatch stddev."""

    _block: type[nn.Module] = ResidualDown

    def __init__(self, resolutions: Sequence[int], channels: int = 32, max_channels: int = 512, **more: Any) -> None:
        super().__init__(resolutions, channels, max_channels, **more)
        widths = self.widths[:-1]  # the stem halves without widening
        self.stem = nn.Conv2d(self.image_channels, widths[0], 4, stride=2, padding=1)
        self.blocks = nn.Sequential(*(self._block(a, b) for a, b in pairwise(widths)))
        self.last = nn.Conv2d(widths[-1] + 1, widths[-1], 3, padding=1)
        self.head = nn.Linear(widths[-1] * _SMALLEST**2, self.outputs)
        self._initialise(self.head)

    def features(self, images: Tensor, fade: float, sets: int) -> Tensor:
        x = self.blocks(F.leaky_relu(self.stem(images), _SLOPE))
        x = torch.cat([x, minibatch_stddev(x, sets)], dim=1)
        return self.head(F.leaky_relu(self.last(x), _SLOPE).flatten(1))


class Lean(Small):
    """The same with one strided convolution in a block."""

    _block = StridedDown


class Residual(Discriminator):
    """1x1 stem, a residual block per halving, a last convolution over what is left."""

    def __init__(self, resolutions: Sequence[int], channels: int = 32, max_channels: int = 512, **more: Any) -> None:
        super().__init__(resolutions, channels, max_channels, **more)
        self.stem = nn.Conv2d(self.image_channels, self.widths[0], 1)
        self.blocks = nn.Sequential(*(ResidualDown(a, b) for a, b in pairwise(self.widths)))
        self.last = ResidualDown(self.widths[-1], self.widths[-1])  # 4 x 4 to 2 x 2
        self.head = nn.Conv2d(self.widths[-1], self.outputs, 2)
        self._initialise(self.head)

    def features(self, images: Tensor, fade: float, sets: int) -> Tensor:
        return self.head(self.last(self.blocks(self.stem(images)))).flatten(1)


class Progressive(Discriminator):
    """CoordConv residual blocks; each resolution has its own stem, and a new one fades in over the one before."""

    grows = True
    _strided = False

    def __init__(self, resolutions: Sequence[int], channels: int = 32, max_channels: int = 512, **more: Any) -> None:
        super().__init__(resolutions, channels, max_channels, **more)
        # Stems for all resolutions that are met, and for the half of each, which fades out.
        wanted = {side for resolution in resolutions for side in (resolution, resolution // 2)}
        self.stems = nn.ModuleDict(
            {
                str(side): nn.Conv2d(self.image_channels, self.widths[self._level(side)], 1)
                for side in sorted(wanted)
                if side >= _SMALLEST
            }
        )
        self.blocks = nn.ModuleList(CoordDown(a, b, self._strided) for a, b in pairwise(self.widths))
        self.last = CoordDown(self.widths[-1], self.widths[-1], self._strided)
        self.head = nn.Conv2d(self.widths[-1], self.outputs, 2)
        self._initialise(self.head)

    def _level(self, side: int) -> int:
        return int(math.log2(self.resolution // side))

    def features(self, images: Tensor, fade: float, sets: int) -> Tensor:
        side = images.shape[2]
        level = self._level(side)
        x = F.leaky_relu(self.stems[str(side)](images), _SLOPE)
        for index in range(level, len(self.blocks)):
            x = self.blocks[index](x)
            if index == level and fade < 1:
                half = F.avg_pool2d(images, 2)
                x = torch.lerp(F.leaky_relu(self.stems[str(side // 2)](half), _SLOPE), x, fade)
        return self.head(self.last(x)).flatten(1)


class Strided(Progressive):
    """The same with strided convolutions."""

    _strided = True


class StyleGan2(Discriminator):
    """Equalised learning rates, blurred residual halvings, minibatch stddev."""

    def __init__(self, resolutions: Sequence[int], channels: int = 32, max_channels: int = 512, **more: Any) -> None:
        super().__init__(resolutions, channels, max_channels, **more)
        self.stem = EqualConv(self.image_channels, self.widths[0], 1)
        self.blocks = nn.Sequential(*(BlurDown(a, b) for a, b in pairwise(self.widths)))
        self.last = EqualConv(self.widths[-1] + 1, self.widths[-1], 3)
        self.hidden = EqualLinear(self.widths[-1] * _SMALLEST**2, self.widths[-1])
        self.head = EqualLinear(self.widths[-1], self.outputs)

    def features(self, images: Tensor, fade: float, sets: int) -> Tensor:
        x = self.blocks(_gained(self.stem(images)))
        x = torch.cat([x, minibatch_stddev(x, sets)], dim=1)
        return self.head(_gained(self.hidden(_gained(self.last(x)).flatten(1))))


DISCRIMINATORS: dict[str, type[Discriminator]] = {
    "lean": Lean,
    "small": Small,
    "residual": Residual,
    "progressive": Progressive,
    "strided": Strided,
    "stylegan2": StyleGan2,
}


# ------------------------------------------------------------------------------------------------ spectral norm


def add_spectral_norm(discriminator: nn.Module) -> None:
    """Divide every weight by its largest singular value, as `update_spectral_norm` last estimated it."""
    for module in list(discriminator.modules()):
        if isinstance(module, (nn.Conv2d, nn.Linear, EqualConv, EqualLinear)):
            if isinstance(module, (EqualConv, EqualLinear)):
                module.scale = 1.0  # the norm is what scales it
            spectral_norm(module)
    discriminator.eval()  # a forward pass changes nothing, so chunks may run in parallel


def update_spectral_norm(discriminator: nn.Module) -> None:
    """One step of the power iteration of each weight."""
    for module in discriminator.modules():
        if nn.utils.parametrize.is_parametrized(module, "weight"):
            module.train()
            _ = module.weight
            module.eval()


def logits_of(discriminator: Discriminator, fade: float) -> Callable[[Tensor], Tensor]:
    """The logits alone, as penalties take them."""
    return lambda images: discriminator(images, fade).logit
