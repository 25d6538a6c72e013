"""What the package is set beside (`benchmarks/peers.py`, `mesh_peers.py`): right gradients, absent peers in a line."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import trimesh

import edge_gradients
import mesh_peers
import mitsuba_grid
import peers
import reconstruct
from measure import measure
from options import Options
from scenes import blurred_noise, filtered, sphere_area
from sdfgan import cameras, fields, raycast

ESTIMATORS: dict[str, tuple[Callable[..., torch.Tensor], int, float]] = {
    "band": (partial(edge_gradients.relaxed_boundary, width=0.02), 16, 0.1),
    "warp": (edge_gradients.reparameterised, 4, 0.06),
    "volume": (partial(edge_gradients.volume, width=0.003), 3, 0.1),
}


def view_of(radius: torch.Tensor, resolution: int, grid: bool = False) -> edge_gradients.View:
    def field(size: torch.Tensor) -> fields.Field:
        ball = fields.Sphere(size)
        if not grid:
            return ball
        return edge_gradients.GridSDF(ball.sdf(edge_gradients.grid_points(32, torch.float32)).view(33, 33, 33))

    axes = cameras.rotate_axes((torch.tensor([0.3]), torch.tensor([0.4])))
    return edge_gradients.View(field(radius), field(radius.detach()), axes, raycast.Lighting(), resolution)


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_silhouette_grows_as_it_does(name: str, grid: bool) -> None:
    """The derivative of a ball's area by its radius, against that of its exact silhouette."""
    estimate, side, tolerance = ESTIMATORS[name]
    radius = torch.tensor(0.5, requires_grad=True)
    image = estimate(view_of(radius, 16, grid), side, torch.Generator().manual_seed(0))
    (slope,) = torch.autograd.grad(image[3].sum(), radius)
    view = view_of(radius, 16)
    areas = [sphere_area(0.5 + step, torch.zeros(3), view.axes[0], 16) for step in (-0.01, 0.0, 0.01)]
    assert slope.item() == pytest.approx((areas[2] - areas[0]) / 0.02, rel=tolerance + 0.02 * grid)
    assert image[3].sum().item() == pytest.approx(areas[1], rel=0.06 if name == "volume" else 0.02)


def test_a_grid_is_trilinear_and_its_gradient_is_its_own() -> None:
    random = torch.Generator().manual_seed(0)
    field = edge_gradients.GridSDF(torch.rand(5, 5, 5, generator=random, dtype=torch.float64))
    points = 2 * torch.rand(50, 3, generator=random, dtype=torch.float64) - 1
    image = torch.nn.functional.grid_sample(
        field.values.permute(2, 1, 0)[None, None], points.view(1, 1, 1, -1, 3), align_corners=True
    )
    torch.testing.assert_close(field.sdf(points), image.flatten())
    leaf = points.requires_grad_()
    value, gradient = field.sdf_and_gradient(leaf)
    torch.testing.assert_close(value, image.flatten())
    torch.testing.assert_close(gradient, torch.autograd.grad(field.sdf(leaf).sum(), leaf)[0])
    assert gradient.norm(dim=-1).max() <= field.lipschitz


def test_filters_keep_the_mean() -> None:
    fine = blurred_noise(2, 3, 32)
    fine[..., :8, :] = fine[..., -8:, :] = fine[..., :8] = fine[..., -8:] = 0
    for tent in (False, True):
        coarse = filtered(fine, 4, tent)
        assert coarse.shape == (2, 3, 8, 8)
        torch.testing.assert_close(16 * coarse.sum((-2, -1)), fine.sum((-2, -1)))


def test_an_absent_mitsuba_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mitsuba", None)
    assert mitsuba_grid.why_not() == "mitsuba is left out, for it is not installed: pip install mitsuba"


@pytest.mark.parametrize("case", ["mesh_signs", "marching", "surface_points"])
def test_absent_libraries_cost_only_themselves(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("igl", "open3d", "pysdf", "mcubes", "rtree"):
        monkeypatch.setitem(sys.modules, name, None)
    records = {}
    for comparison in getattr(mesh_peers, case)(Options(True, None)):
        comparison.variants.pop("trimesh", None)  # seconds
        records.update({(comparison.title, one["variant"]): one for one in measure(comparison, 1)})
    absent = [one for one in records.values() if one["variant"] in ("libigl", "open3d", "pysdf", "pymcubes")]
    assert absent and all(one["error"].startswith("ModuleNotFoundError: ") for one in absent)
    own = [one for one in records.values() if one["variant"].startswith("sdfgan")]
    assert own and all(one["median_s"] > 0 for one in own)
    if case == "mesh_signs":
        assert all(one["wrong_signs_percent"] == 0 for one in own if one["variant"] == "sdfgan, repaired")
        flipped = next(one for one in own if one["config"]["mesh"] == "a third flipped" and "," not in one["variant"])
        assert flipped["wrong_signs_percent"] > 1  # the measure sees what is wrong
    if case == "marching":
        assert own[0]["watertight"] and own[0]["farthest_vertex_cells"] < 0.1
    if case == "surface_points":
        assert 0.5 < own[0]["scatter"] < 1.5


def test_without_records_there_is_no_figure(tmp_path: Path) -> None:
    assert reconstruct.draw([], tmp_path / "a.png").startswith("no figure: ")


def test_setups_are_not_mixed(tmp_path: Path) -> None:
    """Records of before have the default one; of the same setup the newest counts, each has a panel of its own."""
    pytest.importorskip("matplotlib")
    old = {
        "table": "reconstruct",
        "scene": "ring",
        "method": "exact",
        "curve": [{"cpu_seconds": 0, "chamfer_percent": 7}],
    }
    assert reconstruct.Setup.of(old) == reconstruct.Setup()
    point = {"cpu_seconds": 0, "chamfer_percent": 5, "surface_percent": 4}
    others = [{**old, **setup._asdict(), "curve": [point]} for setup in (reconstruct.Setup(), reconstruct.QUICK)]
    shown = reconstruct.newest_of([old, *others, {**others[1], "method": "dfr"}])
    assert [(one["method"], one["curve"]) for one in shown] == [
        ("exact", [point]),
        ("exact", [point]),
        ("dfr", [point]),
    ]
    assert reconstruct.draw([old, *others], tmp_path / "a.png") == f"figure in {tmp_path / 'a.png'}"


@pytest.mark.parametrize("sparse", [False, True])
def test_a_ring_grows_out_of_a_ball(sparse: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From coarse to fine, by all pixels or by some: the surface comes nearer in two seconds."""
    trimesh.creation.torus(0.7, 0.3, major_sections=12, minor_sections=8).export(tmp_path / "ring.obj")
    setup = reconstruct.Setup(views=4, resolution=32, cells=16, batch=1, coarse=0.7)

    def estimate(view: edge_gradients.View, done: float, random: torch.Generator) -> torch.Tensor:
        seen.append((view.resolution, len(view.still.values) - 1, view.pixels is not None))
        return edge_gradients.relaxed_boundary(view, 1, random, 0.03)

    seen: list[tuple[int, int, bool]] = []
    monkeypatch.setattr(reconstruct, "_LARGE", 16)
    curve = reconstruct.reconstruct(
        tmp_path / "ring.obj", estimate, 2.0, setup, sparse=sparse, image=tmp_path / "a.png"
    )
    assert list(dict.fromkeys(seen[1:])) == [(8, 8, False), (32, 16, sparse)]
    assert curve[0]["steps"] == 0 and curve[-1]["surface_percent"] < curve[0]["surface_percent"]
    limit = reconstruct.floor(tmp_path / "ring.obj", setup)[0]
    assert limit["surface_percent"] < min(curve[-1]["surface_percent"], limit["chamfer_percent"])
    assert (tmp_path / "a.png").exists()


def test_some_pixels_are_those_of_the_whole_image() -> None:
    view = view_of(torch.tensor(0.5), 8)
    whole = edge_gradients.relaxed_boundary(view, 2, torch.Generator().manual_seed(0), 0.02)
    pixels = torch.tensor([3, 20, 36])
    some = edge_gradients.relaxed_boundary(
        dataclasses.replace(view, pixels=pixels), 2, torch.Generator().manual_seed(0), 0.02
    )
    torch.testing.assert_close(some.flatten(1)[:, pixels], whole.flatten(1)[:, pixels])
    assert (some.flatten(1).abs().sum(0) > 0).nonzero().flatten().tolist() == [
        pixel for pixel in pixels.tolist() if whole.flatten(1)[3, pixel] > 0
    ]


@pytest.mark.slow
def test_the_command_measures_and_reconstructs(tmp_path: Path) -> None:
    trimesh.creation.torus(0.7, 0.3).export(tmp_path / "ring.obj")
    file, figure = tmp_path / "peers.jsonl", tmp_path / "peers.png"
    command = [sys.executable, peers.__file__, "gradients", "cost", "reconstruct", "--quick", "--seconds", "2"]
    command += ["--methods", "exact", "band .01", "volume .01", "--mesh", tmp_path / "ring.obj"]
    command += ["--json", file, "--figure", figure]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [one["table"] for one in records] == ["gradients"] * 6 + ["cost"] * 3 + ["reconstruct"] * 4
    exact = next(one for one in records if one["table"] == "gradients")
    assert exact["cosine"] > 0.97 and exact["area_percent"] < 2
    limit, *made = records[-4:]
    assert limit["method"] == reconstruct.FLOOR and made[0]["method"] == "exact"
    assert all(reconstruct.Setup.of(one) == reconstruct.QUICK for one in (limit, *made))
    first, *_, last = made[0]["curve"]
    for measure_of in ("chamfer_percent", "surface_percent"):
        assert limit[measure_of] < last[measure_of] < 0.7 * first[measure_of]
    drawn = f"figure in {figure}" in done.stdout.replace("\n", "")
    assert drawn == figure.exists() and (drawn or "matplotlib is not installed" in done.stdout)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "TABLE must be"),
        (["cost", "--methods", "nope"], "--methods must be of"),
        (["gradients", "--scenes", "nope"], "--scenes must be of"),
        (["reconstruct", "--rays", "3"], "--rays must be 1, 4 or 16, got 3"),
        (["reconstruct", "--resolution", "100"], "--resolution must be at most 64 or a multiple of it, got 100"),
        (["reconstruct", "--coarse", "1"], "--coarse must be in [0, 1), got 1.0"),
        (["reconstruct", "--coarse", ".5", "--cells", "33"], "--coarse needs a --resolution that 4 divides"),
        (["reconstruct", "--images", "nowhere"], "--images nowhere: there is no such folder"),
        (["--figure", "a.png"], "--figure draws the records of --json FILE"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_a_line(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["peers.py", *words])
    with pytest.raises(SystemExit) as end:
        peers.main()
    assert end.value.code == 2 and said in capsys.readouterr().err


def test_what_is_wrong_with_a_table_is_a_line() -> None:
    command = [sys.executable, peers.__file__, "reconstruct", "--methods", "exact"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "peers.py: reconstruct needs at least one --mesh FILE\n"
