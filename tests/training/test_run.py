"""Run folders, stop signals, progress."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from sdfgan.errors import UserError
from sdfgan.training.checkpoint import load_checkpoint, resolve_checkpoint, save_checkpoint
from sdfgan.training.interrupt import StopSignals
from sdfgan.training.progress import announced, progress
from sdfgan.training.ranks import process_group
from sdfgan.training.run import RunFolder, next_run_folder


def test_resuming_drops_lines_past_the_checkpoint(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", {"x": 1})
    for step in (1, 2, 3):
        run.log(step, {"loss": 0.5})
    run.log_image(3, "samples", torch.rand(3, 8, 8))
    run.close()
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # the process died here
    resumed = RunFolder(run.path, {"x": 1}, resumed_step=2)
    resumed.log(3, {"loss": 0.25, "norm": float("inf")})
    resumed.warn(3, "empty", "silhouettes are empty")
    resumed.close()
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 3] and lines[-2] == {"step": 3, "loss": 0.25, "norm": None}
    assert lines[-1] == {"step": 3, "warning": "empty", "message": "silhouettes are empty"}
    assert json.loads((run.path / "config.json").read_text()) == {"x": 1}


def test_resuming_from_an_earlier_checkpoint_sets_later_ones_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (5, 10, 15):
        save_checkpoint(tmp_path, step, {"a": torch.full((1,), float(step))}, {})
    monkeypatch.chdir(tmp_path / "checkpoints")
    start = resolve_checkpoint(Path("step-0000005"))
    assert start.parent.parent == tmp_path
    for _ in range(2):  # the second time what was set aside is replaced
        RunFolder(start.parent.parent, {}, resumed_step=5).close()
        assert resolve_checkpoint(tmp_path).name == "step-0000005"
        aside = tmp_path / "checkpoints" / "superseded-step-0000010"
        value = load_checkpoint(resolve_checkpoint(aside))[0]["a"].item()
        save_checkpoint(tmp_path, 10, {"a": torch.zeros(1)}, {})
    assert value == 0


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"a": torch.zeros(1)}, {})
    with pytest.raises(UserError, match="holds a run already; continue it with --resume"):
        RunFolder(tmp_path, {})


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        RunFolder(tmp_path / "file" / "run", {})


def test_next_run_folder(tmp_path: Path) -> None:
    assert next_run_folder(tmp_path, "gan").name == "gan-001"
    (tmp_path / "gan-001").mkdir()
    assert next_run_folder(tmp_path, "gan").name == "gan-002"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_become_a_flag_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals() as stop:
        assert stop.received is None
        os.kill(os.getpid(), number)
        assert stop.received == number
        assert signal.getsignal(number) == before  # a second one acts as usual
    assert signal.getsignal(number) == before


def test_progress_without_a_terminal_prints_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(3, "working") as bar:
        for _ in range(3):
            bar.advance(status="fine")
    assert "working 3/3" in capsys.readouterr().out


def test_what_takes_long_is_said_once_it_has_taken_a_second(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sdfgan.training.progress._SECONDS_TO_FIRST_LINE", 0.05)
    with announced("reading it"):
        time.sleep(0.3)
    with announced("reading it in no time"), announced("not for everybody", shown=False):
        pass
    with progress(2, "working", done=1):  # its first step has not ended yet
        time.sleep(0.3)
    assert capsys.readouterr().out == "reading it\nworking 1/2\n"


@pytest.mark.parametrize("stream", [None, "closed", "full"])
def test_streams_that_take_nothing_do_not_stop_the_work(
    stream: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    replaced = None if stream is None else Full() if stream == "full" else io.StringIO()
    if stream == "closed" and replaced is not None:
        replaced.close()
    monkeypatch.setattr(sys, "stdout", replaced)
    monkeypatch.setattr("sdfgan.training.progress._SECONDS_TO_FIRST_LINE", 0.05)
    with announced("reading it"):
        time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_a_file_has_each_line_at_once(tmp_path: Path) -> None:
    """As somebody sees it who follows the output of a run."""
    code = "import time; from sdfgan.cli.streams import open_streams; open_streams(); print('first'); time.sleep(60)"
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=log, cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "log").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None and (tmp_path / "log").read_text() == "first\n"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("port", "rank"), [("1", "1"), ("none", "1"), ("29511", "first")])
def test_processes_that_cannot_meet(port: str, rank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    place = re.escape(f"cannot meet the other processes, 2 in all, at 127.0.0.1:{port}: ")
    with pytest.raises(UserError, match=place), process_group(torch.device("cpu"), timedelta(seconds=2)):
        pass
