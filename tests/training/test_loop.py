"""The training loop, with a job that counts: what it calls and when, what it writes, how it stops and goes on."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

import sdfgan
from counting_job import Counting
from sdfgan.training.checkpoint import list_checkpoints, read_checkpoint
from sdfgan.training.loop import run
from sdfgan.training.steps import Numbers


def test_what_is_called_and_written(tmp_path: Path) -> None:
    job = Counting(tmp_path / "run", sample=3, evaluate=2, checkpoint=2)
    summary = run(job)
    assert job.called == [
        "begin", "evaluate 0", "evaluate 2", "samples/step-0000003.png", "evaluate 4", "samples/step-0000006.png",
        "evaluate 6", "finish",
    ]  # fmt: skip
    lines = [json.loads(line) for line in (job.root / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines if "loss" in line] == [(2, 1.5), (4, 3.5), (6, 5.5)]
    few = Counting(tmp_path / "few", steps=5, log=10)
    run(few)
    (line,) = [one for one in map(json.loads, (few.root / "metrics.jsonl").read_text().splitlines()) if "loss" in one]
    assert line["step"] == 5 and line["loss"] == 3  # the last step is always logged
    assert all(line["odd"] == 0 for line in lines if "loss" in line)  # of the steps where it was finite
    assert [line["step"] for line in lines if "score" in line] == [0, 2, 4, 6]
    assert json.loads((job.root / "config.json").read_text()) == {"steps": 6}
    assert [path.name for path in list_checkpoints(job.root)] == [f"step-000000{step}" for step in (2, 4, 6)]
    assert json.loads((job.root / "summary.json").read_text()) == summary
    assert summary["command"] == "sdfgan train-counting --steps 6"
    assert "sdfgan train-counting --steps 6" in (job.root / "report.html").read_text()
    common = {"kind", "command", "steps", "device", "processes", "threads", "torch", "training_seconds", "wall_seconds"}
    assert common | {"checkpoint", "sum"} == summary.keys() and summary["sum"] == 21 and summary["steps"] == 6


def test_it_stops_when_asked_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "run"
    with pytest.raises(SystemExit) as stopped:
        run(Counting(root, stop_at=3))
    assert stopped.value.code == 128 + signal.SIGTERM
    said = f"\nstopped at step 3 of 6 and saved; continue with --resume {root} (step-0000003)\n"
    assert capsys.readouterr().out.endswith(said)
    job = Counting(root)
    assert run(job, read_checkpoint(root))["sum"] == 21
    assert job.called == ["evaluate 6", "finish"] and f"{root}: continuing at step 3\n" in capsys.readouterr().out
    before = read_checkpoint(root).state
    assert run(Counting(root), read_checkpoint(root))["sum"] == 21
    assert read_checkpoint(root).state == before  # there was nothing to save again


def test_checkpoints_by_time(tmp_path: Path) -> None:
    run(Counting(tmp_path / "often", checkpoint_seconds=1e-9))
    assert [path.name for path in list_checkpoints(tmp_path / "often")][-1] == "step-0000006"
    summary = run(Counting(tmp_path / "never", worth_saving=100.0))
    assert not list_checkpoints(tmp_path / "never") and summary["checkpoint"] is None


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Counting(tmp_path / "run")
    job.dry_run = True
    assert run(job) == {"dry_run": True, "config": {"steps": 6}} and job.called == []
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == "dry run: everything is in place; no run was written\n"


def test_without_a_run_folder_nothing_is_kept_and_signals_act_as_usual(tmp_path: Path) -> None:
    job = Counting(tmp_path, stop_at=3, checkpoint=1)
    job.runs = {}
    previous = signal.signal(signal.SIGTERM, lambda number, frame: job.called.append("SIGTERM"))
    try:
        run(job)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert job.called == ["begin", "evaluate 0", "SIGTERM", "evaluate 6", "finish"]
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_a_failure_is_passed_on_with_the_folder_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Counting) -> Numbers:
        raise RuntimeError("no step")

    monkeypatch.setattr(Counting, "step", fail)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match="no step"):
        run(Counting(tmp_path / "run"))
    assert signal.getsignal(signal.SIGTERM) is before and not list_checkpoints(tmp_path / "run")


def test_there_is_one_training_loop() -> None:
    package = Path(sdfgan.__file__).parent
    users = {str(path.relative_to(package)) for path in package.rglob("*.py") if "StopSignals" in path.read_text()}
    assert users == {"training/interrupt.py", "training/loop.py", "cli/view.py"}  # the last serves, and trains nothing
