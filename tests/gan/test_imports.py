"""Generators of dfr and pi-GAN: what is imported computes what they compute, written out here a second time."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sdfgan.errors import UserError
from sdfgan.fields.volume import Places
from sdfgan.gan import load_generator
from sdfgan.gan.imports import import_generator

WIDTH = 12


class Sine(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, WIDTH)


class Dfr(nn.Module):
    """dfr's generator by its names."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        hidden = [nn.Linear(6, 10), nn.LeakyReLU(0.2), nn.Linear(10, 10), nn.LeakyReLU(0.2)]
        if not shared:
            hidden += [nn.Linear(10, 10), nn.LeakyReLU(0.2)]
        self.film = nn.Sequential(*hidden, nn.Linear(10, 2 * WIDTH * (1 if shared else 10)))
        self.layers = nn.ModuleList([Sine(3 if i == 0 else WIDTH) for i in range(4)])
        self.sdfLayers = nn.ModuleList([*(Sine(WIDTH) for _ in range(3)), nn.Linear(WIDTH, 1)])
        self.txLayers = nn.ModuleList([*(Sine(WIDTH) for _ in range(3)), nn.Linear(WIDTH, 3)])

    def forward(self, points: Tensor, latent: Tensor, omegas: tuple[float, float]) -> tuple[Tensor, Tensor]:
        film = self.film(latent).view(-1, 2, WIDTH)
        sines = [*self.layers, *self.sdfLayers[:3], *self.txLayers[:3]]

        def sine(index: int, x: Tensor) -> Tensor:
            gamma, beta = film[index if len(film) > 1 else 0]
            return torch.sin((omegas[0] if index == 0 else omegas[1]) * (sines[index].linear(x) * gamma + beta))

        trunk = points
        for index in range(4):
            trunk = sine(index, trunk)
        sdf = texture = trunk
        for index in range(3):
            sdf, texture = sine(4 + index, sdf), sine(7 + index, texture)
        return self.sdfLayers[3](sdf)[:, 0], (self.txLayers[3](texture).sin() + 1) / 2


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_dfr(shared: bool, suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = Dfr(shared)
    path = tmp_path / f"e100{suffix}"
    if suffix == ".pt":
        torch.save({"gen": theirs.state_dict()}, path)
    else:
        save_file(theirs.state_dict(), path)
    checkpoint, kind = import_generator(path, tmp_path / "run", omegas=(5.0, 7.0))
    assert kind == "dfr" and checkpoint.name == "step-0000000"
    ours, config = load_generator(tmp_path / "run")
    assert config.latent_std == 2.5 and config.fov == 25
    points, latent = torch.rand(50, 3), torch.randn(1, 6)
    sdf, colour = theirs(points, latent, (5.0, 7.0))
    condition = ours.condition(latent)
    torch.testing.assert_close(ours.sdf(points, condition), sdf, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.rgb(points, condition), colour, atol=1e-5, rtol=1e-4)


class Film(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, WIDTH)

    def forward(self, x: Tensor, frequency: Tensor, phase: Tensor) -> Tensor:
        return torch.sin(frequency * self.layer(x) + phase)


class Siren(nn.Module):
    """pi-GAN's network by its names."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.ModuleList([Film(3 if i == 0 else WIDTH) for i in range(8)])
        self.final_layer = nn.Linear(WIDTH, 1)
        self.color_layer_sine = Film(WIDTH + 3)
        self.color_layer_linear = nn.Sequential(nn.Linear(WIDTH, 3))
        hidden = [m for i in range(3) for m in (nn.Linear(6 if i == 0 else 10, 10), nn.LeakyReLU(0.2))]
        self.mapping_network = nn.Module()
        self.mapping_network.network = nn.Sequential(*hidden, nn.Linear(10, 9 * 2 * WIDTH))

    def forward(self, points: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
        film = self.mapping_network.network(latent)[0]
        frequencies, phases = film[: len(film) // 2] * 15 + 30, film[len(film) // 2 :]
        x = points * 2 / 0.24
        for index, layer in enumerate(self.network):
            part = slice(index * WIDTH, (index + 1) * WIDTH)
            x = layer(x, frequencies[part], phases[part])
        front = torch.tensor([0.0, 0, -1]).expand(len(points), 3)
        last = self.color_layer_sine(torch.cat([front, x], 1), frequencies[-WIDTH:], phases[-WIDTH:])
        return self.final_layer(x)[:, 0], self.color_layer_linear(last).sigmoid()


def test_pi_gan(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = nn.Module()
    theirs.siren = Siren()
    with torch.no_grad():  # about the size that trained weights have
        for index, layer in enumerate(theirs.siren.network):
            layer.layer.weight *= 0.5 if index == 0 else math.sqrt(6) / 25
    path = tmp_path / "generator.pth"
    torch.save(theirs.state_dict(), path)
    _, kind = import_generator(path, tmp_path / "run", level=0.1)
    ours, config = load_generator(tmp_path / "run")
    assert kind == "pi-gan" and config.fov == 12
    points, latent = torch.rand(50, 3) * 2 - 1, torch.randn(1, 6)
    # World units there are camera distances: the view's half-width at the object is tan(fov / 2).
    density, colour = theirs.siren(points * math.tan(math.radians(6)), latent)
    condition = ours.condition(latent)
    torch.testing.assert_close(ours.sdf(points, condition) * ours.slope, 0.1 - density, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(ours.rgb(points, condition), colour, atol=1e-4, rtol=1e-3)
    _, gradient = ours.sdf_and_gradient(points, condition)
    assert gradient.norm(dim=1).median() < 1.2, "safe to march"
    # As a volume: densities of pi-GAN's unit of length, of world units, and the same colours.
    places = Places(points, torch.tensor([[0.0, 0.0, -1.0]]).expand(50, 3))
    radiance = ours.radiance(places, condition)
    scale = math.tan(math.radians(6))
    torch.testing.assert_close(radiance.density, density.clamp(min=0) * scale, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(radiance.rgb, colour, atol=1e-4, rtol=1e-3)


def test_bad_files_are_named(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    state = Dfr(False).state_dict()
    save_file({k: v for k, v in state.items() if k != "txLayers.3.bias"}, tmp_path / "part.safetensors")
    save_file({**state, "layers.1.linear.weight": torch.zeros(2, 2)}, tmp_path / "shape.safetensors")
    save_file(state, tmp_path / "good.safetensors")
    for name, message in (
        ("none", "none.safetensors: no such file"),
        ("other", "expected the generator of dfr or pi-GAN"),
        ("part", "txLayers.3.bias is missing"),
        ("shape", r"layers.1.weight must be \[12, 12\], got \[2, 2\]"),
    ):
        with pytest.raises(UserError, match=message):
            import_generator(tmp_path / f"{name}.safetensors", tmp_path / "run")
        assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="expected the generator of pi-gan"):
        import_generator(tmp_path / "good.safetensors", tmp_path / "run", "pi-gan")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(UserError, match="full: exists"):
        import_generator(tmp_path / "good.safetensors", tmp_path / "full")
