"""Sheets and thin solids: how they are told from others, the mesh of an unsigned distance, and what training makes."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from torch import Tensor

from sdfgan import meshes
from sdfgan.cameras import rotate_axes
from sdfgan.cli import main
from sdfgan.errors import UserError
from sdfgan.fields.function import FunctionField
from sdfgan.meshes.thinness import measure_thinness
from sdfgan.raycast import render
from sdfgan.sdf import GroundTruth, evaluation, load, report, sheet_mesh
from sdfgan.sdf.config import SdfConfig
from sdfgan.sdf.files import open_case
from sdfgan.sdf.job import settings_of
from sdfgan.sdf.runs import train

AXES = rotate_axes((torch.tensor([0.4]), torch.tensor([0.3])))


def sheet_field(distance: Any) -> FunctionField:
    field = FunctionField(distance)
    field.unsigned = True
    return field


def to_hemisphere(points: Tensor) -> Tensor:
    """The distance to the upper half of the sphere of radius 0.6."""
    ring = torch.stack([points[:, [0, 2]].norm(dim=1) - 0.6, points[:, 1]], 1).norm(dim=1)
    return torch.where(points[:, 1] >= 0, (points.norm(dim=1) - 0.6).abs(), ring)


def hemisphere() -> trimesh.Trimesh:
    ball = trimesh.creation.icosphere(4, radius=0.6)
    return trimesh.Trimesh(ball.vertices, ball.faces[(ball.triangles_center[:, 1] > 0)], process=False)


def rectangle(width: float, height: float) -> trimesh.Trimesh:
    corners = [[x * width / 2, 0.1, z * height / 2] for x, z in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], process=False)


@pytest.mark.parametrize("resolution", [40, 64])
def test_the_mesh_of_a_sheet_is_one_layer(resolution: int) -> None:
    mesh = sheet_mesh(sheet_field(to_hemisphere), resolution=resolution)
    assert mesh.area == pytest.approx(2 * math.pi * 0.6**2, rel=0.05)
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 0.6).max() < 0.5 / resolution
    assert trimesh.graph.connected_component_labels(mesh.face_adjacency, len(mesh.faces)).max() == 0
    uses = np.unique(np.sort(mesh.edges, 1), axis=0, return_counts=True)[1]
    assert uses.max() == 2
    border = np.unique(mesh.edges_sorted[trimesh.grouping.group_rows(mesh.edges_sorted, require_count=1)])
    assert 0 < len(border) < 0.2 * len(mesh.vertices) and np.abs(mesh.vertices[border, 1]).max() < 3 / resolution
    outwards = (mesh.face_normals * mesh.triangles_center).sum(1)
    assert abs(np.average(np.sign(outwards), weights=mesh.area_faces)) > 0.999  # slivers apart, one way


def test_no_wall_between_two_sheets() -> None:
    """Half way between them gradients point towards each other."""
    mesh = sheet_mesh(sheet_field(lambda points: ((points[:, 0] - 0.02).abs() - 0.06).abs()), resolution=50, bound=0.5)
    assert sorted(set(mesh.vertices[:, 0].round(6))) == [-0.04, 0.08]


@pytest.mark.parametrize(("cells", "layers"), [(40, 1), (80, 2)])
def test_sheets_nearer_than_a_cell_merge(cells: int, layers: int) -> None:
    """Two, 0.02 apart, in cells of 0.025 and of half of that: why a mesh of sheets is made with a finer grid."""
    field = sheet_field(lambda points: ((points[:, 0] - 0.006).abs() - 0.01).abs())
    mesh = sheet_mesh(field, resolution=cells, bound=0.5)
    assert len(set(mesh.vertices[:, 0].round(6))) == layers


def test_a_box_without_a_sheet() -> None:
    with pytest.raises(UserError, match="no surface in the box from -1 to 1"):
        sheet_mesh(sheet_field(lambda points: points.norm(dim=1) + 1), resolution=16)
    with pytest.raises(UserError, match="not finite"):
        sheet_mesh(sheet_field(lambda points: points[:, 0] * torch.nan), resolution=16)
    for wrong in ({"resolution": 0}, {"bound": -1.0}):
        with pytest.raises(ValueError, match="sheet_mesh: "):
            sheet_mesh(sheet_field(to_hemisphere), **wrong)  # type: ignore[arg-type]


def thinness_of(mesh: trimesh.Trimesh, cells: int = 200) -> Any:
    return measure_thinness(GroundTruth(mesh), cells)


def test_thickness_is_counted_in_cells() -> None:
    ball = thinness_of(trimesh.creation.icosphere(3, radius=0.5))
    assert not ball.as_solid() and not ball.is_sheet and ball.resolved_at == 200 and ball.open == 0
    plate = trimesh.creation.box((1, 0.015, 1))  # of cells of 0.01
    found = thinness_of(plate)
    assert found.below_one_cell < 0.02 and found.below_two_cells > 0.95 and not found.has_holes and not found.is_sheet
    assert found.resolved_at == pytest.approx(4 / 0.015, rel=0.25)
    assert "97% than two" in found.as_solid() or "98% than two" in found.as_solid()
    foil = thinness_of(trimesh.creation.box((1, 0.002, 1)))
    assert foil.is_sheet and "100% of the surface is thinner than half a cell of the grid of 200" in foil.as_sheet()
    both = trimesh.util.concatenate([plate, trimesh.creation.icosphere(3, radius=0.5).apply_translation((0, 0.7, 0))])
    assert thinness_of(both).below_two_cells == pytest.approx(2 / (2 + math.pi), abs=0.04)


def test_what_encloses_nothing_is_open() -> None:
    assert thinness_of(rectangle(1, 1)).open > 0.95 and thinness_of(rectangle(1, 1)).is_sheet
    half = thinness_of(hemisphere())
    assert half.openings == pytest.approx(0.5, abs=0.08) and half.is_sheet and "its openings have" in half.as_sheet()
    box = trimesh.creation.box((1, 1, 1))
    lidless = trimesh.Trimesh(box.vertices, box.faces[box.face_normals[:, 1] < 0.5], process=False)
    found = thinness_of(lidless)
    assert found.openings == pytest.approx(0.2, abs=0.05) and not found.is_sheet
    pair = trimesh.util.concatenate([box, rectangle(0.3, 0.3)])  # buried
    assert thinness_of(pair).open == 0


def test_buried_faces_are_no_surface() -> None:
    """Of two boxes in each other, the union's surface is all of it."""
    boxes = [
        trimesh.creation.box((0.8, 0.4, 0.4)),
        trimesh.creation.box((0.4, 0.4, 0.4)).apply_translation((0.3, 0, 0)),
    ]
    truth = GroundTruth(trimesh.util.concatenate(boxes))
    union = trimesh.creation.box((0.9, 0.4, 0.4)).apply_translation((0.05, 0, 0))
    metrics = evaluation.mesh_metrics(union, truth)
    assert metrics["chamfer_percent"] < 1e-3 and metrics["f_score"] == 1


@pytest.mark.parametrize("thickness", [0.3, 0.01])
def test_overlap_of_something_thin(thickness: float) -> None:
    """A plate against the same one, half a thickness higher: a third."""
    truth = GroundTruth(trimesh.creation.box((1, thickness, 1)))

    def sdf(points: Tensor) -> Tensor:
        half = torch.tensor([0.5, thickness / 2, 0.5])
        return ((points - torch.tensor([0, thickness / 2, 0])).abs() - half).amax(1)

    assert evaluation.field_metrics(FunctionField(sdf), truth)["iou"] == pytest.approx(1 / 3, abs=0.02)


SMALL: dict[str, Any] = {
    "num_points": 60_000, "epochs": 6, "batch_size": 1000, "mesh_resolution": 48, "device": "cpu",
    "levels": 3, "finest": 32, "log2_size": 16, "learning_rate": 4e-3,
}  # fmt: skip


@pytest.fixture(scope="module")
def sheet_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sheet")
    hemisphere().export(folder / "bowl.stl")
    train(SdfConfig(input=folder / "bowl.stl", output_dir=folder / "run", show_vis=1, **SMALL))
    return folder / "run"


def test_an_open_sheet_is_learnt_unsigned(sheet_run: Path) -> None:
    summary = json.loads((sheet_run / "summary.json").read_text())
    assert summary["field"] == "unsigned" and summary["thinness"]["openings"] > 0.4
    assert "iou" not in summary["metrics"] and summary["metrics"]["chamfer_percent"] < 0.4
    mesh = trimesh.load(sheet_run / "mesh.glb", force="mesh")
    assert mesh.area == pytest.approx(2 * math.pi * 0.6**2, rel=0.1)  # one layer, no lid
    for name in ("slices.png", "error.png", "turntable.mp4"):
        assert (sheet_run / name).stat().st_size > 500


def test_what_is_made_of_an_unsigned_field_later(sheet_run: Path) -> None:
    field = load(sheet_run)
    assert field.unsigned and (field(2 * torch.rand(1000, 3) - 1) >= 0).all()
    with pytest.raises(ValueError, match=r"no inside.*shell\(\)"):
        render(sdf=field, axes=AXES, resolution=16)
    with pytest.raises(ValueError, match="sheet_mesh"):
        meshes.marching_cubes(field)
    assert 0.1 < render(sdf=field.shell(0.02), axes=AXES, resolution=32).alpha.mean() < 0.9
    shell = meshes.marching_cubes(field.shell(0.03), resolution=64)
    assert shell.is_watertight and shell.volume > 0
    with pytest.raises(ValueError, match="half_thickness must be positive"):
        field.shell(0)
    assert main(["render", str(sheet_run), "--views", "2", "--resolution", "32"]) == 0  # a thin shell
    made = Image.open(sheet_run / "renders" / "grid.png").convert("L")
    assert made.getextrema()[0] < 250, "something is seen on the white background"
    assert main(["extract-mesh", str(sheet_run), "--mesh-resolution", "32"]) == 0
    assert len(meshes.read_mesh(sheet_run / "meshes" / "mesh.glb").faces) > 100
    assert main(["extract-mesh", str(sheet_run), "--format", "mrc"]) == 2  # it has no inside


def test_the_kind_of_field_can_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = {**SMALL, "num_points": 3000, "epochs": 1, "mesh_resolution": 24, "metrics": False}
    hemisphere().export(tmp_path / "bowl.stl")
    trimesh.creation.icosphere(3).export(tmp_path / "ball.stl")
    for name, kind, wanted in (
        ("bowl", "auto", "unsigned"), ("bowl", "signed", "signed"),
        ("ball", "auto", "signed"), ("ball", "unsigned", "unsigned"),
    ):  # fmt: skip
        config = SdfConfig(tmp_path / f"{name}.stl", tmp_path / name / kind, field=kind, **tiny)  # type: ignore[arg-type]
        assert train(config)["field"] == wanted and load(tmp_path / name / kind).unsigned == (wanted == "unsigned")
    said = capsys.readouterr().out.splitlines()
    assert any("bowl.stl: " in line and "an unsigned field: its openings have" in line for line in said)
    points = np.random.default_rng(0).uniform(-1, 1, (3000, 3))
    np.savez(tmp_path / "a.npz", points=points, distances=np.abs(points[:, 0]))
    np.savez(tmp_path / "b.npz", points=points, distances=points[:, 0])
    assert train(SdfConfig(tmp_path / "a.npz", tmp_path / "a", **tiny))["field"] == "unsigned"
    assert train(SdfConfig(tmp_path / "b.npz", tmp_path / "b", **tiny))["field"] == "signed"
    with pytest.raises(UserError, match="--field unsigned is for --network hash and mlp"):
        SdfConfig(tmp_path / "a.npz", network="film-siren", field="unsigned", device="cpu").resolved()


def test_both_kinds_are_trained_together(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    hemisphere().export(tmp_path / "in" / "bowl.stl")
    trimesh.creation.icosphere(3, radius=0.6).export(tmp_path / "in" / "ball.stl")
    config = SdfConfig(tmp_path / "in", tmp_path / "out", together=2, **{**SMALL, "metrics": False})
    assert train(config)["failed"] == 0
    for name, unsigned in (("bowl", True), ("ball", False)):
        field = load(tmp_path / "out" / name)
        below = field(torch.tensor([[0.0, -0.2, 0.0], [0.0, 0.0, 0.0]]))
        assert field.unsigned == unsigned and (below > 0).all() == unsigned
    assert (
        SdfConfig.from_json(json.loads((tmp_path / "out/config.json").read_text()), Path("config.json")).field == "auto"
    )


def test_thin_solids_get_a_finer_grid(tmp_path: Path) -> None:
    trimesh.creation.box((1, 0.01, 1)).export(tmp_path / "plate.stl")  # 0.8 cells of the preset's mesh
    tiny: dict[str, Any] = {**SMALL, "preset": "low", "num_points": 20_000, "epochs": 2, "metrics": False}

    def fitted(name: str, **changes: Any) -> dict[str, Any]:
        return train(SdfConfig(tmp_path / "plate.stl", tmp_path / name, **{**tiny, **changes}))

    summary = fitted("fine", mesh_resolution=None)
    assert 200 < summary["reconstruction_res"] <= 256 and summary["note"].startswith("thin: 9")
    assert report.describe(summary)[0] == summary["note"]
    assert fitted("as-asked", mesh_resolution=None, refine_thin=False)["reconstruction_res"] == 128
    summary = fitted("coarse", mesh_resolution=40)
    assert summary["reconstruction_res"] == 40 and summary["field"] == "signed" and summary["thinness"]["cells"] == 128


def test_sheets_get_a_grid_twice_as_fine(tmp_path: Path) -> None:
    hemisphere().export(tmp_path / "bowl.stl")
    for wanted, changes in (
        (256, {}),
        (128, {"refine_thin": False}),
        (40, {"mesh_resolution": 40}),
        (300, {"mesh_resolution": 300}),
    ):
        config = SdfConfig(tmp_path / "bowl.stl", preset="low", num_points=1000, device="cpu", **changes).resolved()  # type: ignore[arg-type]
        case = open_case(config, tmp_path / "bowl.stl", tmp_path)
        assert case.unsigned and report.mesh_cells(config, case) == wanted


def test_near_sheets_get_a_finer_hash_grid(tmp_path: Path) -> None:
    """In a folder, beside what does not need it; not where a coarser one was asked for."""
    (tmp_path / "in").mkdir()
    hemisphere().export(tmp_path / "in" / "bowl.stl")
    trimesh.creation.icosphere(3, radius=0.6).export(tmp_path / "in" / "ball.stl")
    trimesh.creation.box((1, 0.004, 1)).export(tmp_path / "in" / "foil.stl")
    plain: dict[str, Any] = {"preset": "low", "num_points": 20_000, "epochs": 1, "mesh_resolution": 32}
    config = SdfConfig(tmp_path / "in", tmp_path / "out", together=3, metrics=False, device="cpu", **plain)
    assert train(config)["failed"] == 0
    found = {name: load(tmp_path / "out" / name) for name in ("bowl", "ball", "foil")}
    assert [found[name].unsigned for name in found] == [True, False, True]
    assert [found[name].encoding.cells[-1] for name in found] == [48, 48, 96]
    foil = tmp_path / "in" / "foil.stl"
    case = open_case(config.resolved(), foil, tmp_path)
    changes: dict[str, Any]
    for changes, wanted in (({"finest": 32}, 32), ({"finest": 200}, 200), ({"refine_thin": False}, 48)):
        assert settings_of(dataclasses.replace(config, **changes).resolved(), case).finest == wanted
    own = settings_of(config.resolved(), case)
    assert own.finest == settings_of(own, case).finest == 96  # also when the run goes on


def test_a_run_that_goes_on_says_why_it_is_unsigned(tmp_path: Path) -> None:
    """Its settings say what was chosen; the reason is the one that was found at first."""
    hemisphere().export(tmp_path / "bowl.stl")
    np.savez(tmp_path / "bowl.npz", points=np.random.default_rng(0).uniform(-1, 1, (50, 3)), distances=np.ones(50))
    for name, reason in (("bowl.stl", "its openings have "), ("bowl.npz", "no distance is negative")):
        config = SdfConfig(tmp_path / name, preset="low", num_points=1000, device="cpu").resolved()
        case = open_case(config, tmp_path / name, tmp_path)
        assert case.why_unsigned and case.why_unsigned.startswith(reason)
        own = dataclasses.replace(settings_of(config, case), resume=tmp_path)
        assert own.field == "unsigned" and open_case(own, tmp_path / name, tmp_path).why_unsigned == case.why_unsigned
        asked = dataclasses.replace(config, field="unsigned")
        assert open_case(asked, tmp_path / name, tmp_path).why_unsigned == "as asked"
        assert not open_case(dataclasses.replace(config, field="signed"), tmp_path / name, tmp_path).unsigned


def test_a_signed_field_has_no_sheet() -> None:
    with pytest.raises(ValueError, match="sheet_mesh: a signed field has an inside"):
        sheet_mesh(FunctionField(lambda points: points.norm(dim=1) - 0.5), resolution=16)
    with pytest.raises(TypeError, match="sheet_mesh: resolution must be a whole number"):
        sheet_mesh(sheet_field(to_hemisphere), resolution=2.5)
