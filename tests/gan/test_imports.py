"""Generators of dfr and pi-GAN: what is imported computes what they compute, written out here a second time."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sdfgan.cli import main
from sdfgan.compat.importers import import_generator
from sdfgan.errors import UserError
from sdfgan.fields.volume import RaySamples
from sdfgan.gan import load_generator

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
    made = import_generator(path, tmp_path / "run", omegas=(5.0, 7.0))
    assert made.curriculum == "dfr" and made.checkpoint.name == "step-0000000"
    ours, config = load_generator(tmp_path / "run")
    assert config == made.config and config.generator == "dfr" and config.renderer == "sdfgan"
    assert (config.latent_std, config.fov, config.resolution, config.poses) == (2.5, 25, 64, "uniform")
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


def pi_gan(path: Path) -> nn.Module:
    """A generator as pi-GAN has it, in a file."""
    torch.manual_seed(0)
    theirs = nn.Module()
    theirs.siren = Siren()
    with torch.no_grad():  # about the size that trained weights have
        for index, layer in enumerate(theirs.siren.network):
            layer.layer.weight *= 0.5 if index == 0 else math.sqrt(6) / 25
    torch.save(theirs.state_dict(), path)
    return theirs


def test_pi_gan(tmp_path: Path) -> None:
    path = tmp_path / "generator.pth"
    theirs = pi_gan(path)
    made = import_generator(path, tmp_path / "run", level=0.1)
    ours, config = load_generator(tmp_path / "run")
    assert made.config == config and config.generator == "pi-gan" and config.fov == 12 and made.curriculum == "celeba"
    points, latent = torch.rand(50, 3) * 2 - 1, torch.randn(1, 6)
    # World units there are camera distances: the view's half-width at the object is tan(fov / 2).
    density, colour = theirs.siren(points * math.tan(math.radians(6)), latent)
    condition = ours.condition(latent)
    torch.testing.assert_close(ours.sdf(points, condition) * ours.slope, 0.1 - density, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(ours.rgb(points, condition), colour, atol=1e-4, rtol=1e-3)
    _, gradient = ours.sdf_and_gradient(points, condition)
    assert gradient.norm(dim=1).median() < 1.2, "safe to march"
    # As a volume: densities of pi-GAN's unit of length, of world units, and the same colours.
    places = RaySamples(points, torch.tensor([[0.0, 0.0, -1.0]]).expand(50, 3))
    radiance = ours.radiance(places, condition)
    scale = math.tan(math.radians(6))
    torch.testing.assert_close(radiance.density, density.clamp(min=0) * scale, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(radiance.rgb, colour, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "expected", "said"),
    [
        (["--curriculum", "CelebA"],
         ("gaussian", (-17.189, 17.189), 12, 64, (0.88, 1.12), "celeba", None), "12 degrees"),
        (["--curriculum", "carla", "--fov", "35", "--resolution", "32"],
         ("spherical_uniform", (-180, 180), 35, 32, (0.7, 1.3), "carla", (1, 1, 1)), "sampled between 0.7 and 1.3"),
        (["--poses", "fixed", "--azimuth", "-9", "9", "--elevation", "0", "5", "--near-far", "0.9", "1"],
         ("fixed", (-9, 9), 12, 64, (0.9, 1), "celeba", None), "assumed to be those of celeba"),
        (["--no-box-warp"],
         ("spherical_uniform", (-180, 180), 30, 128, (0.7, 1.3), "carla", (1, 1, 1)), "assumed to be those of carla"),
    ],
)  # fmt: skip
def test_the_command_keeps_the_camera(
    arguments: list[str], expected: tuple, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pi_gan(tmp_path / "generator.pth")
    assert main(["import-weights", str(tmp_path / "generator.pth"), str(tmp_path / "run"), *arguments]) == 0
    out = capsys.readouterr().out
    checkpoint = tmp_path / "run" / "checkpoints" / "step-0000000"
    assert said in out and out.splitlines()[-1] == f"imported the generator of pi-gan; wrote {checkpoint}"
    assert ("assumed" in out) == ("--curriculum" not in arguments)
    generator, config = load_generator(tmp_path / "run")
    names = ["poses", "azimuth", "fov", "resolution", "near_far", "data_layout", "background"]
    assert tuple(getattr(config, name) for name in names) == expected
    box = 1 if expected[5] == "carla" else 2 / 0.24
    assert generator.near_far == expected[4]
    assert generator.scale.item() == pytest.approx(box * math.tan(math.radians(config.fov / 2)))


def test_the_command_names_what_is_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pi_gan(tmp_path / "generator.pth")
    arguments = ["import-weights", str(tmp_path / "generator.pth"), str(tmp_path / "run")]
    for flags, message in (
        (["--curriculum", "faces"], "--curriculum must be one of aircraft, carla, cats, celeba"),
        (["--fov", "200"], "--fov must be between 1 and 150 degrees"),
        (["--near-far", "1.2", "0.8"], "--near-far must be NEAR FAR with 0 <= NEAR < FAR, got 1.2 0.8"),
        (["--poses", "data"], "pose distribution: must be one of uniform"),
        (["--azimuth", "9", "-9"], "--azimuth must be LOW HIGH in degrees"),
        (["--resolution", "48"], "--resolution must be a power of two from 16"),
    ):
        assert main([*arguments, *flags]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
    assert main(arguments) == 0
    run = str(tmp_path / "run")
    for flags, message in (([], "give real images by --real"), (["--shapes", "5"], "leave it out")):
        assert main(["evaluate", run, *flags]) == 2
        assert message in capsys.readouterr().err


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
