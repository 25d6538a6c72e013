"""The benchmarks: their baselines do what they are compared with, and the command runs."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import baselines
import bench
import busy
import cases
import growth
import growth_page
import measure as measuring
import models
import traces
from measure import Comparison, DeviceLost, measure
from options import Options
from sdfgan import cameras, fields, ops, raycast
from sdfgan.errors import UserError
from sdfgan.raycast.dfr_images import dfr_points

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def some_network() -> tuple[fields.FilmSirenSDF, torch.Tensor]:
    torch.manual_seed(0)
    network = fields.FilmSirenSDF(width=32, latent_size=8).requires_grad_(False)
    network.sdf_head.mul_(4)
    return network, torch.randn(3, 8)


@pytest.mark.parametrize("name", ["faithful", "gather", "seg", "bf16"])
def test_evaluators_give_the_values_of_the_field(name: str) -> None:
    field, latents = some_network()
    points, image = 2 * torch.rand(100, 3) - 1, torch.arange(100) // 40
    answer = baselines.evaluators(field, latents, (name,))[name]()(points, image)
    tolerance = 3e-2 if name == "bf16" else 1e-5
    torch.testing.assert_close(answer, field.sdf(points, field.condition(latents), image), atol=tolerance, rtol=0)


@pytest.mark.parametrize("scales", [(16, 4), (8, 2, 2)])
def test_dfrs_march_is_dfrs(scales: tuple[int, ...]) -> None:
    field, latents = some_network()
    axes = cameras.rotate_axes((torch.tensor([-0.5, 0.1, 0.7]), torch.tensor([0.0, 2, 4])))
    with torch.no_grad():
        plain = baselines.trace_dfr(baselines.gather(field, latents), axes, scales)
    ours = raycast.multiscale(axes, scales, latents, field, algorithm="dfr")
    found = ours.mask.masked_scatter(ours.mask, ours.hit)
    assert (found & plain.hit).sum() / (found | plain.hit).sum() > 0.999
    assert abs(ours.queries - plain.queries) <= 1e-3 * plain.queries
    depth = torch.zeros(found.shape).masked_scatter(ours.mask, ours.distances)
    assert (depth - plain.distance)[found & plain.hit].abs().quantile(0.99) < 1e-5
    points = dfr_points(field, field.condition(latents), axes, scales, cameras.DEFAULT_FOV)
    assert torch.equal(points.mask, plain.shaded)
    assert (points.distances - plain.start[plain.shaded]).abs().quantile(0.99) < 1e-5


def test_the_captured_march_is_the_same() -> None:
    """But for products in float16. On a CPU nothing is recorded."""
    field, latents = some_network()
    axes = cameras.rotate_axes((torch.tensor([-0.5, 0.1, 0.7]), torch.tensor([0.0, 2, 4])))
    with torch.no_grad():
        plain = baselines.trace_dfr(baselines.gather(field, latents), axes, (8, 2))
        captured = baselines.CapturedDfr(field, latents, axes, (8, 2))()
    assert (captured.hit != plain.hit).sum() <= 2
    both = captured.hit & plain.hit
    assert both.sum() > 50 and (captured.distance - plain.distance)[both].abs().median() < 1e-3


@pytest.mark.parametrize("per_point", [True, False])
def test_dfrs_training_step_makes_dfrs_image(per_point: bool) -> None:
    field, latents = some_network()
    field.requires_grad_()
    axes = cameras.rotate_axes((torch.tensor([-0.5, 0.1, 0.7]), torch.tensor([0.0, 2, 4])))
    picture = raycast.render(sdf=field, axes=axes, latents=latents, resolution=64, edge="dfr").rgba
    of_picture, eikonal = baselines.dfr_losses(field, latents, axes, (16, 4), per_point)
    torch.testing.assert_close(of_picture, picture.square().mean(), rtol=1e-3, atol=0)
    eikonal.backward()
    assert all(weight.grad.abs().sum() > 0 for weight in field.weights[: field.trunk_layers + field.sdf_layers])


@pytest.mark.slow
def test_every_variant_of_a_step_runs() -> None:
    comparison = cases._step(*some_network(), cameras.rotate_axes((torch.zeros(2), torch.arange(2.0))), 64)
    with torch.no_grad():
        assert {record["variant"] for record in measure(comparison, 1)} == set(comparison.variants)


@pytest.mark.slow
def test_whole_steps_of_a_gan_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "_STEPS_TO_SHAPES", 1)  # this one has R1
    monkeypatch.setattr(cases, "_STEPS_OF_R1", 1)
    (comparison,) = cases.gan_step(Options(quick=True, generator=None))
    with torch.no_grad():
        assert {record["variant"] for record in measure(comparison, 1)} == set(comparison.variants)


@pytest.mark.parametrize("values", [True, False])
def test_plain_gradients_are_the_same(values: bool) -> None:
    comparison = cases._gradient(*some_network(), 100, even=False, values=values)
    comparison.variants.pop("torch compile")  # minutes
    with torch.no_grad():
        fused, plain = measure(comparison, 1)
    assert fused["variant"] == "fused" and fused["largest_difference"] < 1e-4 and plain["largest_difference"] == 0


def test_plain_operators_give_the_same() -> None:
    x, edges = torch.rand(7, 3), torch.rand(5, 9).cumsum(-1)
    weights = torch.rand(5, 8) + 0.1
    u = (torch.arange(6) + 0.5).expand(5, 6) / 6
    torch.testing.assert_close(
        baselines.positional_encoding(x, 4), ops.positional_encoding(x, 4, include_input=True), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        baselines.sample_pdf(edges, weights, u), ops.sample_pdf(edges, weights, 6), atol=1e-5, rtol=0
    )
    rays = weights, weights / 3, torch.rand(5, 8, 3), edges[:, 1:].contiguous()
    for plain, ours in zip(baselines.composite(*rays), ops.composite(*rays), strict=True):
        torch.testing.assert_close(plain, ours, atol=1e-5, rtol=0)


def test_records_say_what_they_depend_on() -> None:
    comparison = Comparison("case", {"size": 1}, {"slow": lambda: sum(range(20000)), "fast": lambda: None}, ("slow",))
    slow, fast = measure(comparison, 3)
    assert fast["times_faster_than"]["slow"] > 1 and slow["times_faster_than"] == {}
    assert {"device", "threads", "commit", "versions", "command", "median_s", "spread"} <= fast.keys()


def test_the_command_lists_and_refuses() -> None:
    listed = subprocess.run(
        [sys.executable, BENCHMARKS / "bench.py", "--list"], capture_output=True, text=True, check=True
    )
    assert all(name in listed.stdout for name in ("trace", "evaluate", "ops", "mesh", "step"))
    refused = subprocess.run([sys.executable, BENCHMARKS / "bench.py", "nope"], capture_output=True, text=True)
    assert refused.returncode == 2 and "CASE must be" in refused.stderr


def test_listing_imports_nothing_that_a_bare_machine_may_lack() -> None:
    code = """
import runpy, sys
sys.argv = ["bench.py", "--list"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    print(end.code, {"igl", "imageio", "matplotlib", "mrcfile", "rtree", "trimesh", "tyro"} & set(sys.modules))
"""
    listed = subprocess.run(
        [sys.executable, "-c", code], cwd=BENCHMARKS, env=environment(), capture_output=True, text=True, check=True
    )
    assert listed.stdout.splitlines()[-1] == "0 set()"


def test_packages_that_are_missing_are_said_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "igl", "rtree", "embreex", "open3d", "pysdf", "mcubes"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    asked = argparse.Namespace(case=["mesh"], json=Path("a.jsonl"))
    assert bench.missing(asked) == ["no picture of the ratios will be drawn: pip install matplotlib"]
    said = bench.missing(argparse.Namespace(case=["all"], json=None))
    packages = "libigl", "open3d", "pysdf", "rtree", "embreex", "PyMCubes"
    assert [line.split(": ")[1] for line in said] == [f"pip install {name}" for name in packages]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


# `bench.py` with a case of its own in place of all others: one word for what this package's second variant does, one
# for what the baseline does, one for what happens after two comparisons.
DRIVER = """
import os, signal, sys, time
import bench, cases
from measure import Comparison, lazily

def refuse():
    raise RuntimeError("no compiler\\nand much more")

does = {
    "works": lambda: None,
    "fails": lazily(refuse),
    "dies": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sleeps": lambda: time.sleep(2),
}
ours, theirs, after = sys.argv.pop().split()

def case(options):
    for size in (1, 2):
        variants = {"torch": does[theirs], "fused": does[ours], "march": lambda: None}
        yield Comparison("made up", {"size": size}, variants, ("torch",))
    does[after]()

cases.CASES.clear()
cases.CASES["made up"] = case
sys.exit(bench.main())
"""


def run_driver(folder: Path, does: str, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[Any]]:
    """What the process printed and returned, and the records in its file after one that was there before."""
    file = folder / "records.jsonl"
    file.write_text('{"case": "older", "variant": "march", "times_faster_than": {}}\n')
    command = [sys.executable, "-c", DRIVER, "made up", "--quick", "--json", str(file), *arguments, does]
    done = subprocess.run(command, cwd=BENCHMARKS, env=environment(), capture_output=True, text=True)
    older, *records = [json.loads(line) for line in file.read_text().splitlines()]
    assert older["case"] == "older"
    return done, records


@pytest.mark.parametrize(
    ("does", "failed", "status"),
    [
        ("works fails works", {"torch"}, 0),
        ("fails works works", {"fused"}, 1),
        ("fails fails works", {"torch", "fused"}, 1),
        ("works works fails", set(), 1),
    ],
)
def test_what_fails_costs_only_itself(tmp_path: Path, does: str, failed: set[str], status: int) -> None:
    done, records = run_driver(tmp_path, does)
    assert done.returncode == status, done.stdout + done.stderr
    assert [(record["config"]["size"], record["variant"]) for record in records] == [
        (size, name) for size in (1, 2) for name in ("torch", "fused", "march")
    ]
    error = "RuntimeError: no compiler"
    for record in records:
        if record["variant"] in failed:
            assert record["error"] == error and "median_s" not in record
            size = record["config"]["size"]
            assert f"made up: size {size}: {record['variant']} failed: {error}\n" in done.stdout
        else:
            assert record["median_s"] > 0 and record["rounds"] == 3
            compared = {"torch"} - failed - {record["variant"]}
            assert record["times_faster_than"].keys() == compared
    assert (f"\nmade up: {error}\n" in done.stdout) == does.endswith("fails")


def test_what_was_measured_outlives_the_process(tmp_path: Path) -> None:
    done, records = run_driver(tmp_path, "works dies works")
    assert done.returncode == -signal.SIGKILL
    assert [record["variant"] for record in records] == ["fused", "march"]
    assert all(record["median_s"] > 0 for record in records)


def test_records_are_kept_without_matplotlib(tmp_path: Path) -> None:
    """Also beside those of another command, which have no ratios."""
    file = tmp_path / "records.jsonl"
    file.write_text('{"table": "scenes", "scheme": "exact"}\n')
    hidden = "import sys; sys.modules['matplotlib'] = None\n" + DRIVER
    command = [sys.executable, "-c", hidden, "made up", "--quick", "--json", str(file), "works works works"]
    done = subprocess.run(command, cwd=BENCHMARKS, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.splitlines()[0] == "no picture of the ratios will be drawn: pip install matplotlib"
    assert done.stdout.endswith("no picture of the ratios: matplotlib is not installed\n")
    assert len(file.read_text().splitlines()) == 7


def test_nothing_begins_after_the_time_given(tmp_path: Path) -> None:
    done, records = run_driver(tmp_path, "works sleeps works", "--seconds", "2")
    assert done.returncode == 0 and "made up: size 2: no time left" in done.stdout
    assert [(record["variant"], record["rounds"]) for record in records] == [("torch", 1), ("fused", 1), ("march", 1)]


def test_a_lost_device_ends_a_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an illegal access nothing runs on a GPU: what is known by then is kept."""
    lost = False

    def wait(device: str) -> None:
        if lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    def breaks() -> None:
        nonlocal lost
        lost = True

    monkeypatch.setattr(measuring, "_wait", wait)
    monkeypatch.setattr(measuring, "_time", lambda variant, runs, device, clock=None: 0.1 * runs)
    monkeypatch.setattr(measuring, "environment", lambda device: {})
    ran: list[str] = []
    variants = {"march": lambda: ran.append("march"), "fused": breaks, "torch": lambda: ran.append("torch")}
    kept: list[list[Any]] = []
    with pytest.raises(DeviceLost, match=r"RuntimeError: CUDA error: an illegal memory access was encountered$"):
        measure(Comparison("case", {}, variants, ("torch",)), 3, "cuda", keep=kept.append)
    march, fused = kept[-1]
    assert march["median_s"] == pytest.approx(0.1) and "illegal" in fused["error"] and ran == ["march"]


def test_the_march_that_is_captured_is_that_of_multiscale() -> None:
    field, latents = some_network()
    axes = cameras.rotate_axes((torch.tensor([-0.5, 0.1, 0.7]), torch.tensor([0.0, 2, 4])))
    with torch.no_grad():
        captured = traces._found(traces.captured_march(field, latents, axes, 64, "fp32")(), 3, 64)
        marched = traces._found(raycast.multiscale(axes, (16, 4), latents, field, precision="fp32"), 3, 64)
    assert marched.hit.any() and torch.equal(captured.hit, marched.hit)
    assert torch.equal(captured.depth[captured.hit], marched.depth[marched.hit])
    assert captured.queries == marched.queries


def test_knobs_are_turned_and_turned_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDFGAN_COARSEST", "16")
    monkeypatch.delenv("SDFGAN_CONE_STEPS", raising=False)
    seen = traces._with_switches({"cone steps": 8}, lambda: dict(os.environ))
    assert seen["SDFGAN_CONE_STEPS"] == "8" and "SDFGAN_COARSEST" not in seen
    assert os.environ["SDFGAN_COARSEST"] == "16" and "SDFGAN_CONE_STEPS" not in os.environ


@pytest.mark.slow
def test_every_knob_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, which has but some of the switches, and no graph."""
    monkeypatch.setattr(traces, "precisions", lambda device: ("fp32",))
    monkeypatch.setattr(traces, "gpu_peak", lambda precision, device: lambda: 1.0)
    monkeypatch.setattr(traces, "_IMAGES", 2)
    field, latents = some_network()
    axes = cameras.rotate_axes((torch.zeros(2), torch.arange(2.0)))
    with torch.no_grad():
        comparison = traces._knobs(field, latents[:2], axes, quick=False)
        records = measure(comparison, 1)
    assert [record["variant"] for record in records] == list(comparison.variants)
    assert len(records) == 3 + len(list(traces._sweep(field.width)))
    assert all(record["iou"] > 0.99 for record in records if not record["variant"].startswith("peak"))


def test_models_go_on_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.obj").write_text("")
    fitted: list[str] = []

    def fit(path: Path, preset: str, device: str) -> dict[str, Any]:
        fitted.append(path.stem)
        if path.stem == "b":
            raise RuntimeError("no")
        field = {"a": {"iou": 0.9}, "c": {"iou": 0.7}, "d": {}}[path.stem]
        kind = "signed" if field else "unsigned"
        return {"field": kind, "metrics": {**field, "chamfer_percent": 0.05}, "wall_seconds": 2.0}

    monkeypatch.setattr(models, "ours", fit)
    command = ["models.py", str(tmp_path), "--json", str(tmp_path / "out.jsonl")]
    monkeypatch.setattr("sys.argv", [*command, "--count", "2", "--seed", "3"])
    models.main()
    first = list(fitted)
    assert len(first) == 2
    monkeypatch.setattr("sys.argv", command)
    models.main()
    assert sorted(fitted) == list("abcd") and fitted[:2] == first
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| medium")]
    assert "| medium | signed | 2 |  | 0.800 | 0.710 | 0.050 | 0.050 | 50.0% | 2.0 |" in rows
    assert "| medium | all | 3 | 1 | 0.800 | 0.710 | 0.050 | 0.050 | 50.0% | 2.0 |" in rows
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 4


def test_what_a_busy_machine_does_is_timed() -> None:
    assert [(way.threads, way.variables) for way in busy.ways(3)] == [
        (1, {}), (3, {}), (3, {"GOMP_SPINCOUNT": "1000"}), (3, {"OMP_WAIT_POLICY": "PASSIVE"}),
    ]  # fmt: skip
    times = busy.timed_here(quick=True)
    assert list(times) == list(busy.WORKS) and min(times.values()) > 0
    one, three = busy.ways(3)[:2]
    found = busy.records_of({(0, 0): [times] * 2, (0, 1): [times]}, [one, three], {"commit": "-"})
    assert [(record["variant"], record["threads"]) for record in found[:2]] == [("1 thread", 1), ("3 threads", 3)]
    milliseconds = f"{1e3 * times['gan step']:.0f}"
    assert f"| none | {milliseconds} | {milliseconds} |" in busy.table("gan step", found, [one, three])


@pytest.mark.slow
def test_a_busy_machine_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last of the ways in a process of its own, as it should be; the others in this one."""
    file, timed = tmp_path / "busy.jsonl", busy.timed

    def timed_somewhere(way: busy.Way, quick: bool) -> dict[str, float]:
        return timed(way, quick) if way == busy.ways(2)[-1] else busy.timed_here(quick)

    command = ["busy.py", "--quick", "--neighbours", "1", "--rounds", "1", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(busy, "timed", timed_somewhere)
    assert busy.main() == 0
    records = [json.loads(line) for line in file.read_text().splitlines()]
    names = [way.name for way in busy.ways(2)]
    assert [(one["config"]["work"], one["config"]["neighbours"], one["variant"]) for one in records] == [
        (work, 1, name) for work in busy.WORKS for name in names
    ]
    assert all(one["median_s"] > 0 and one["threads"] == one["config"]["threads"] for one in records)
    said = capsys.readouterr().out
    assert said.count(f"| other processes, each busy | {' | '.join(names)} |\n") == 2  # as it is on the page


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_neighbours_end_with_what_started_them() -> None:
    with busy.neighbours(2) as started:
        assert all(is_running(one.pid) for one in started)
    assert not any(is_running(one.pid) for one in started)
    words = "import busy\nwith busy.neighbours(2) as started:\n    print(*(one.pid for one in started), flush=True)\n"
    words += "    input()"
    command = [sys.executable, "-c", words]
    with subprocess.Popen(
        command, cwd=BENCHMARKS, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        orphans = [int(word) for word in parent.stdout.readline().split()]
        assert len(orphans) == 2 and all(map(is_running, orphans))
        parent.kill()
    deadline = time.monotonic() + 20
    while any(map(is_running, orphans)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_busy_refuses_is_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for words, said in (
        (["--threads", "1"], "--threads must be at least 2, got 1"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--neighbours", "1", "1"], "--neighbours must be different numbers that are at least 0"),
        (["--json", "nowhere/a.jsonl"], "--json nowhere/a.jsonl: its folder does not exist"),
    ):
        monkeypatch.setattr(sys, "argv", ["busy.py", *words])
        with pytest.raises(SystemExit) as ended:
            busy.main()
        assert ended.value.code == 2 and said in capsys.readouterr().err


def test_exponents_and_the_newest_points() -> None:
    assert growth_page.exponent([(x, 7 * x**1.5) for x in (1, 10, 50)]) == pytest.approx(1.5)
    made = [
        {"case": "growth", "config": {"curve": "grid", "cells": cells}, "median_s": seconds, **more}
        for cells, seconds, more in [(8, 1.0, {}), (2, 3.0, {}), (8, 2.0, {}), (16, 0, {"error": "no"})]
    ]
    (points,) = growth_page.curves_of([*made, {"case": "trace"}]).values()
    assert [(growth_page.value_of(one), one["median_s"]) for one in points] == [(2, 3.0), (8, 2.0)]


def test_curves_are_measured(tmp_path: Path) -> None:
    file = tmp_path / "growth.jsonl"
    chosen = ["multiscale images", "mesh tree", "read ply", "grid", "set", "decode", "processes"]
    command = [sys.executable, BENCHMARKS / "growth.py", *chosen, "--quick", "--json", file]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [one["config"]["curve"] for one in records] == [
        name for name in growth.CURVES for _ in (1, 2) if name in chosen
    ]
    for one in records:
        assert one["median_s"] > 0 and one["megabytes"] >= 0 and one["clock"] == "processor", one
        assert growth_page.value_of(one) in growth.CURVES[one["config"]["curve"]].values
    assert done.stdout.count("time grows with the power") == len(chosen)


def test_a_point_whose_process_dies_has_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "point", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    record = growth.measure("grid", 64)
    assert record["error"] == "UserError: a process ended with status -9 (-9: it was out of memory)"
    assert record["config"] == {"curve": "grid", "cells a side": 64} and "median_s" not in record


def test_the_page_of_growth_is_that_of_its_records(tmp_path: Path) -> None:
    """`python benchmarks/growth.py --page docs/scaling.md` would change nothing."""
    page = BENCHMARKS.parent / "docs" / "scaling.md"
    copy = tmp_path / "scaling.md"
    copy.write_text(page.read_text())
    growth_page.rewrite(copy)
    assert copy.read_text() == page.read_text()
    curves = growth_page.read()
    for name, points in curves.items():
        measured = [growth_page.value_of(one) for one in points]
        assert len(measured) > 1 and set(measured) <= set(growth.CURVES[name].values), name
    copy.write_text("nothing")
    with pytest.raises(UserError, match=r"must have the lines <!-- curves --> and <!-- end -->"):
        growth_page.rewrite(copy)
