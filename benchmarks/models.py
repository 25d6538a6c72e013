"""What `train-sdf` makes of a folder of models as people have them: open, overlapping, thin, many parts.

    python benchmarks/models.py FOLDER... --count 200 --seed 0 --json models.jsonl
    python benchmarks/models.py FOLDER... --count 200 --seed 0 --json models.jsonl --peer mesh2sdf

Fits random models of the folders (all that `train-sdf` reads, each by itself) and appends a record of each to the JSON
lines as it goes; the same command again does what is left. The table tells all that the file holds of these models.
With --peer also the grid of signed distances that mesh2sdf (Wang et al. 2022) makes of the same repaired mesh, and
marching cubes of it (`pip install mesh2sdf`).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from scipy.ndimage import map_coordinates
from skimage.measure import marching_cubes
from torch import Tensor, nn

from measure import environment
from sdfgan.meshes import normalise, repair
from sdfgan.sdf import GroundTruth, evaluation, read_mesh, train
from sdfgan.sdf.config import PRESETS, SdfConfig
from sdfgan.sdf.files import find_inputs

Record = dict[str, Any]
_KEPT = ("field", "thinness", "metrics", "wall_seconds", "repair", "reconstruction_res")  # of a summary
_SHEET_CHAMFER = 0.1  # percent of the diagonal up to which a sheet is counted as right
_SOLID_IOU = 0.85


class Grid(nn.Module):
    """A grid of distances over the cube, as a field."""

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        self.values = values

    def forward(self, points: Tensor) -> Tensor:
        """[N] at points [N, 3] of [-1, 1]^3; values are those at the lowest corners of cells."""
        places = (points.numpy().T + 1) / 2 * len(self.values)
        return torch.from_numpy(map_coordinates(self.values, places, order=1, mode="nearest")).float()


def ours(path: Path, preset: str, device: str) -> Record:
    """What `sdfgan train-sdf --preset ...` writes in its summary."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        config = SdfConfig(path, Path(folder) / "run", preset=preset, device=device)  # type: ignore[arg-type]
        summary = train(config)
    return {name: summary.get(name) for name in _KEPT} | ({"error": summary["error"]} if "error" in summary else {})


def mesh2sdf(path: Path, cells: int) -> Record:
    """The peer's grid, judged as ours is."""
    import mesh2sdf as peer

    begin = time.perf_counter()
    mesh, _ = normalise(repair(read_mesh(path), str(path))[0])
    values = peer.compute(np.asarray(mesh.vertices), np.asarray(mesh.faces), cells, fix=True, level=2 / cells)
    vertices, faces, _, _ = marching_cubes(np.pad(values, 1, constant_values=1.0), 0.0, gradient_direction="descent")
    seconds = time.perf_counter() - begin
    found = trimesh.Trimesh((vertices - 1) * 2 / cells - 1, faces, process=False)
    truth = GroundTruth(mesh)
    metrics = evaluation.field_metrics(Grid(values), truth) | evaluation.mesh_metrics(found, truth)
    return {"field": "signed", "metrics": metrics, "wall_seconds": round(seconds, 2)}


def table(records: list[Record], variants: list[str]) -> list[str]:
    """In lines of Markdown: a row for the signed and the unsigned fields of each variant."""
    columns = (
        "variant",
        "fields",
        "models",
        "failed",
        "IoU median",
        "5 %",
        "Chamfer % median",
        "95 %",
        "right",
        "s median",
    )
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for variant in variants:
        of = [record for record in records if record["variant"] == variant]
        failed = sum("error" in record for record in of)
        for kind in ("signed", "unsigned", "all"):
            some = [r for r in of if "error" not in r and kind in (r["field"], "all")]
            if not some:
                continue
            iou = [r["metrics"]["iou"] for r in some if "iou" in r["metrics"]]
            chamfer = [r["metrics"]["chamfer_percent"] for r in some]
            right = sum(is_right(r) for r in some) / (len(some) + (failed if kind == "all" else 0))
            cells = [variant, kind, len(some), failed if kind == "all" else ""]
            cells += [f"{np.median(iou):.3f}", f"{np.quantile(iou, 0.05):.3f}"] if iou else ["", ""]
            cells += [f"{np.median(chamfer):.3f}", f"{np.quantile(chamfer, 0.95):.3f}", f"{right:.1%}"]
            cells.append(f"{np.median([r['wall_seconds'] for r in some]):.1f}")
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def is_right(record: Record) -> bool:
    """IoU of at least 0.85; of a sheet, a Chamfer distance of at most 0.1 % of the diagonal."""
    metrics = record["metrics"]
    return metrics["iou"] >= _SOLID_IOU if "iou" in metrics else metrics["chamfer_percent"] <= _SHEET_CHAMFER


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--count", type=int, help="of random models; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", default="medium", choices=PRESETS[True])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--peer", choices=["mesh2sdf"])
    parser.add_argument("--peer-cells", type=int, default=128, help="along a side of its grid")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    models = [(folder, path) for folder in given.folders for path in find_inputs(folder)[0]]
    if given.count is not None:
        models = random.Random(given.seed).sample(models, min(given.count, len(models)))
    variants = {given.preset: lambda path: ours(path, given.preset, given.device)}
    if given.peer:
        variants[f"{given.peer}, {given.peer_cells}"] = lambda path: mesh2sdf(path, given.peer_cells)
    shared = environment(given.device)
    names = {str(path.relative_to(folder) if folder.is_dir() else path.name) for folder, path in models}
    known = [json.loads(line) for line in given.json.read_text().splitlines()] if given.json.exists() else []
    known = [record for record in known if record["model"] in names and record["variant"] in variants]
    done = {(record["model"], record["variant"]) for record in known}
    for index, (folder, path) in enumerate(models):
        for variant, fit in variants.items():
            name = str(path.relative_to(folder) if folder.is_dir() else path.name)
            if (name, variant) in done:
                continue
            begin = time.perf_counter()
            try:
                found = fit(path)
            except Exception as error:  # of any kind: that none fails is what is asked
                found = {"error": f"{type(error).__name__}: {error}"}
            seconds = round(time.perf_counter() - begin, 1)
            record = {"suite": "models", "model": name, "variant": variant, "preset": given.preset, **found, **shared}
            known.append(record)
            with given.json.open("a") as file:
                file.write(json.dumps(record) + "\n")
            said = found.get("error") or {
                k: round(v, 3) for k, v in found["metrics"].items() if k in ("iou", "chamfer_percent")
            }
            print(f"{index + 1}/{len(models)} {name}: {variant}: {said}, {seconds} s", file=sys.stderr, flush=True)
    print("\n".join(table(known, list(variants))))


if __name__ == "__main__":
    main()
