"""The Inception network whose features FID and KID are defined on (Szegedy et al. 2016; Heusel et al. 2017).

Its names of layers are those of the weights that circulate as "pt_inception-2015-12-05": the network of the original
FID, with 1008 classes, whose pooling leaves out padding. The weights are not part of this package.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfgan.data.shapes import default_cache_folder
from sdfgan.errors import UserError
from sdfgan.training.weights import load_weights

_NAMES = (
    "inception-fid.safetensors",
    "pt_inception-2015-12-05-6726825d.safetensors",
    "pt_inception-2015-12-05-6726825d.pth",
)
MIN_IMAGES = 10  # on each side: of fewer, features say nothing
WHERE = (
    "put pt_inception-2015-12-05-6726825d.pth (the weights of the pytorch-fid project, published with its releases, "
    "91 MB), or the same as safetensors, into {folder}, or name the file with --inception"
)


class Conv(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int | tuple[int, int], stride: int = 1) -> None:
        super().__init__()
        size = (size, size) if isinstance(size, int) else size
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding=0, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor, padding: tuple[int, int] = (0, 0)) -> Tensor:
        x = F.conv2d(x, self.conv.weight, None, self.conv.stride, padding)
        return F.relu(self.bn(x))


def _same(layer: Conv) -> tuple[int, int]:
    height, width = layer.conv.kernel_size
    return height // 2, width // 2


def _chain(x: Tensor, *layers: Conv) -> Tensor:
    for layer in layers:
        x = layer(x, _same(layer))
    return x


def _pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class MixedA(nn.Module):
    """35 x 35: 1x1, 5x5, double 3x3, pooled."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Conv(inputs, 48, 1), Conv(48, 64, 5)
        self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3 = (
            Conv(inputs, 64, 1),
            Conv(64, 96, 3),
            Conv(96, 96, 3),
        )
        self.branch_pool = Conv(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = _chain(x, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3)
        five = _chain(x, self.branch5x5_1, self.branch5x5_2)
        return torch.cat([_chain(x, self.branch1x1), five, double, _chain(_pool(x), self.branch_pool)], 1)


class MixedB(nn.Module):
    """35 x 35 to 17 x 17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = Conv(inputs, 384, 3, 2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(inputs, 64, 1), Conv(64, 96, 3)
        self.branch3x3dbl_3 = Conv(96, 96, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(_chain(x, self.branch3x3dbl_1, self.branch3x3dbl_2))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class MixedC(nn.Module):
    """17 x 17: 1x1, factorised 7x7 once and twice, pooled."""

    def __init__(self, inputs: int, middle: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 192, 1)
        self.branch7x7_1 = Conv(inputs, middle, 1)
        self.branch7x7_2, self.branch7x7_3 = Conv(middle, middle, (1, 7)), Conv(middle, 192, (7, 1))
        self.branch7x7dbl_1 = Conv(inputs, middle, 1)
        self.branch7x7dbl_2, self.branch7x7dbl_3 = Conv(middle, middle, (7, 1)), Conv(middle, middle, (1, 7))
        self.branch7x7dbl_4, self.branch7x7dbl_5 = Conv(middle, middle, (7, 1)), Conv(middle, 192, (1, 7))
        self.branch_pool = Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = _chain(x, self.branch7x7_1, self.branch7x7_2, self.branch7x7_3)
        double = _chain(
            x, self.branch7x7dbl_1, self.branch7x7dbl_2, self.branch7x7dbl_3, self.branch7x7dbl_4, self.branch7x7dbl_5
        )
        return torch.cat([_chain(x, self.branch1x1), seven, double, _chain(_pool(x), self.branch_pool)], 1)


class MixedD(nn.Module):
    """17 x 17 to 8 x 8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Conv(inputs, 192, 1), Conv(192, 320, 3, 2)
        self.branch7x7x3_1, self.branch7x7x3_2 = Conv(inputs, 192, 1), Conv(192, 192, (1, 7))
        self.branch7x7x3_3, self.branch7x7x3_4 = Conv(192, 192, (7, 1)), Conv(192, 192, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_4(_chain(x, self.branch7x7x3_1, self.branch7x7x3_2, self.branch7x7x3_3))
        return torch.cat([self.branch3x3_2(_chain(x, self.branch3x3_1)), seven, F.max_pool2d(x, 3, 2)], 1)


class MixedE(nn.Module):
    """8 x 8: 1x1, forked 3x3, double 3x3 forked, pooled (by maxima in the last one)."""

    def __init__(self, inputs: int, maxima: bool) -> None:
        super().__init__()
        self.maxima = maxima
        self.branch1x1 = Conv(inputs, 320, 1)
        self.branch3x3_1 = Conv(inputs, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = Conv(384, 384, (1, 3)), Conv(384, 384, (3, 1))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(inputs, 448, 1), Conv(448, 384, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = Conv(384, 384, (1, 3)), Conv(384, 384, (3, 1))
        self.branch_pool = Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = _chain(x, self.branch3x3_1)
        double = _chain(x, self.branch3x3dbl_1, self.branch3x3dbl_2)
        pooled = F.max_pool2d(x, 3, 1, 1) if self.maxima else _pool(x)
        forks = ((three, self.branch3x3_2a), (three, self.branch3x3_2b), (double, self.branch3x3dbl_3a))
        parts = [_chain(y, layer) for y, layer in (*forks, (double, self.branch3x3dbl_3b))]
        return torch.cat([_chain(x, self.branch1x1), *parts, _chain(pooled, self.branch_pool)], 1)


class Inception(nn.Module):
    """Features [N, 2048] of images [N, 3, H, W] in [0, 1], which are resized to 299 x 299 bilinearly."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3, self.Conv2d_2b_3x3 = Conv(3, 32, 3, 2), Conv(32, 32, 3), Conv(32, 64, 3)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = Conv(64, 80, 1), Conv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = MixedA(192, 32), MixedA(256, 64), MixedA(288, 64)
        self.Mixed_6a = MixedB(288)
        self.Mixed_6b, self.Mixed_6c = MixedC(768, 128), MixedC(768, 160)
        self.Mixed_6d, self.Mixed_6e = MixedC(768, 160), MixedC(768, 192)
        self.Mixed_7a, self.Mixed_7b, self.Mixed_7c = MixedD(768), MixedE(1280, False), MixedE(2048, True)
        self.requires_grad_(False).eval()

    def early(self, images: Tensor) -> Tensor:
        """[N, 192, 35, 35]: what the first five convolutions see. Differentiable in the images."""
        x = F.interpolate(images, (299, 299), mode="bilinear", align_corners=False) * 2 - 1
        x = self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))
        x = F.max_pool2d(self.Conv2d_2b_3x3(x, (1, 1)), 3, 2)
        return F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        x = self.early(images)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean((2, 3))


def find_weights(given: Path | None) -> Path | None:
    """The weights' file: `given`, $SDFGAN_INCEPTION, or one of the known names in the cache folder; None if none is."""
    if given is None and os.environ.get("SDFGAN_INCEPTION"):
        given = Path(os.environ["SDFGAN_INCEPTION"])
    if given is not None:
        if not given.is_file():
            raise UserError(f"{given}: no such file; {where()}")
        return given
    return next((path for name in _NAMES if (path := default_cache_folder() / name).is_file()), None)


def where() -> str:
    """What to do about missing weights."""
    return WHERE.format(folder=default_cache_folder())


def load_inception(path: Path) -> Inception:
    """The network with weights from a .safetensors or a .pth, which is never unpickled freely. Raises UserError."""
    with torch.device("meta"):  # no time is spent on weights that are replaced
        network = Inception()
    tensors = load_weights(path)
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")]
    if missing:
        raise UserError(f"{path}: not the Inception weights of FID: {missing[0]} is missing; {where()}")
    for name, tensor in wanted.items():
        if name in tensors and tensors[name].shape != tensor.shape:
            raise UserError(f"{path}: {name} must be {list(tensor.shape)}, got {list(tensors[name].shape)}")
    if "AuxLogits.fc.weight" in tensors:
        raise UserError(f"{path}: these are the weights of another Inception, on which FID is not defined; {where()}")
    counter = torch.tensor(0)  # of batches, which some files leave out and nothing reads
    network.load_state_dict({name: tensors.get(name, counter) for name in wanted}, assign=True)
    return network.requires_grad_(False).eval()
