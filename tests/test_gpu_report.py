"""The GPU report, without a GPU: what a stage does wrong costs only itself, and what is known is on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

import gpu_report
import gpu_smoke
from gpu_report import Stage
from stage_process import last_lines, run_limited, shorten

ROOT = Path(__file__).parents[1]


def stage(name: str, code: str, limit: float = 20.0) -> Stage:
    return Stage(name, [sys.executable, "-c", textwrap.dedent(code)], limit)


def record_of(name: str, records: Path) -> str:
    """Code that appends a record."""
    record = {"case": "gan", "config": {"size": 1}, "variant": name, "numbers": {"rate": 2.5}, "times_faster_than": {}}
    return f"print({json.dumps(json.dumps(record))}, file=open({str(records)!r}, 'a'), flush=True)"


def alive(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text()), 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid_file.read_text()}/stat").read_text()
    return status.rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_it_asks_for_a_gpu() -> None:
    done = subprocess.run([sys.executable, ROOT / "tools/gpu_report.py"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("gpu_report.py: torch ") and "sees no GPU" in done.stderr


def test_what_a_stage_does_wrong_costs_only_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = tmp_path / "gpu.jsonl"
    stages = [
        stage("good", record_of("first", records)),
        stage("bad", "raise SystemExit(3)"),
        stage("crashes", "import os; os.kill(os.getpid(), 11)"),
        stage("hangs", f"{record_of('from a hang', records)}\nwhile True: pass", 1),
        Stage("absent", ["no-such-program"], 5),
        stage("last", record_of("last", records)),
    ]
    begin = time.monotonic()
    assert not gpu_report.run_stages(stages, tmp_path, records, 6, "a GPU")
    assert time.monotonic() - begin < 15
    report = (tmp_path / "report.txt").read_text()
    outcomes = {line.split()[0]: line.split("  ")[1:] for line in report.splitlines() if line.endswith(" s")}
    names = {name: " ".join(rest).rsplit(maxsplit=2)[0].split(maxsplit=1)[1] for name, rest in outcomes.items()}
    assert names == {
        "good": "passed",
        "bad": "failed (3)",
        "crashes": "killed by SIGSEGV",
        "hangs": "out of time",
        "absent": "no-such-program not found",
        "last": "passed",
    }
    assert [f"{name} " in report for name in ("first", "from a hang", "last")] == [True] * 3
    assert capsys.readouterr().out.count("a GPU\n") == 1 + len(stages)  # the table, after each
    assert len(list(tmp_path.iterdir())) <= 4


def test_limits_scale_and_end_with_the_time(tmp_path: Path) -> None:
    stages = [stage("slow", "while True: pass", 6), stage("late", "pass")]
    begin = time.monotonic()
    assert not gpu_report.run_stages(stages, tmp_path, tmp_path / "r.jsonl", 6 / 60, "a GPU")
    assert time.monotonic() - begin < 6
    report = (tmp_path / "report.txt").read_text()
    assert "slow       out of time" in report and (tmp_path / "report.log").read_text().startswith("a GPU")


@pytest.mark.parametrize(
    "start",
    ["subprocess.Popen(child)", "subprocess.Popen(child, start_new_session=True)"],
    ids=["in the group", "in a session of its own"],
)
@pytest.mark.parametrize("end", ["", "while True: time.sleep(1)"], ids=["ends", "hangs"])
def test_children_are_ended_too(tmp_path: Path, start: str, end: str) -> None:
    """Also those that hold its output open and hear no SIGTERM."""
    pid = tmp_path / "pid"
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(1)"
    code = f"""
        import signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = [sys.executable, "-c", {child!r}]
        open({str(pid)!r}, "w").write(str({start}.pid))
        {end}
    """
    begin = time.monotonic()
    output = tmp_path / "output"
    ended = run_limited(stage("", code).command, 1.5, output, dict(os.environ), tmp_path)
    assert ended.outcome == ("out of time" if end else "passed")
    assert time.monotonic() - begin < 10
    assert not alive(pid)


def test_floods_are_cut(tmp_path: Path) -> None:
    """Their beginning and their end are kept, the latter without a gap, however fast they come."""
    output = tmp_path / "output"
    code = "print('the first line')\nfor i in range(5000): print(i, 'x' * 20000)\nprint('the last line')"
    assert run_limited(stage("", code).command, 30, output, dict(os.environ), tmp_path).outcome == "passed"
    assert output.stat().st_size < 1 << 20
    text = output.read_text()
    assert text.startswith("the first line") and text.endswith("the last line\n") and " bytes left out " in text
    end = text.rpartition(" bytes left out ...\n")[2].splitlines()[1:-1]  # without the line that was cut
    assert len(end) > 20 and [int(line.split()[0]) for line in end] == list(range(5000 - len(end), 5000))
    assert len("".join(last_lines(output, 40))) < 10_000


def test_a_file_that_is_written_to_can_be_shortened(tmp_path: Path) -> None:
    path = tmp_path / "output"
    with path.open("ab", buffering=0) as file:
        file.write(b"a" * (2 << 20))
        shorten(path, 1 << 20)
        file.write(b"end")
    assert path.read_bytes()[-4:] == b"aend" and path.stat().st_size < 1 << 20


def test_what_is_known_survives_the_death_of_the_report(tmp_path: Path) -> None:
    records = tmp_path / "gpu.jsonl"
    waits = f"{record_of('second', records)}\nimport time\ntime.sleep(30)"
    code = f"""
        import sys
        from pathlib import Path
        from gpu_report import Stage, run_stages
        stages = [
            Stage("first", [sys.executable, "-c", {record_of("first", records)!r}], 20),
            Stage("second", [sys.executable, "-c", {waits!r}], 5),
        ]
        run_stages(stages, Path({str(tmp_path)!r}), Path({str(records)!r}), 6, "a GPU")
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], env=environment, stdout=subprocess.PIPE)
    until = time.monotonic() + 20
    while not (records.exists() and len(records.read_text().splitlines()) == 2) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    report = (tmp_path / "report.txt").read_text()
    assert "first      passed" in report and "second     not yet" in report
    assert [json.loads(line)["variant"] for line in records.read_text().splitlines()] == ["first", "second"]
    assert "second" in (tmp_path / "running.log").read_text()


def test_half_a_record_costs_only_itself(tmp_path: Path) -> None:
    records = tmp_path / "gpu.jsonl"
    stages = [stage("dies", f"open({str(records)!r}, 'a').write('{{')"), stage("lives", record_of("whole", records))]
    assert gpu_report.run_stages(stages, tmp_path, records, 6, "a GPU")
    assert "whole" in (tmp_path / "report.txt").read_text()


def test_a_check_that_crashes_costs_only_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def raises(device: str) -> gpu_smoke.Errors:
        raise RuntimeError("two\nlines")

    checks = {
        "good": lambda device: {"error": (0.0, 1.0)},
        "crashes": lambda device: os.kill(os.getpid(), signal.SIGKILL),
        "hangs": lambda device: time.sleep(60),
        "raises": raises,
        "is wrong": lambda device: {"error": (2.0, 1.0)},
        "is not a number": lambda device: {"error": (float("nan"), 1.0)},
        "last": lambda device: {"error": (0.0, 1.0)},
    }
    monkeypatch.setattr(gpu_smoke, "CHECKS", checks)
    monkeypatch.setattr(gpu_smoke, "_SECONDS", 1.0)
    records = tmp_path / "records.jsonl"
    monkeypatch.setattr(sys, "argv", ["gpu_smoke.py", "--device", "cpu", "--json", str(records)])
    assert gpu_smoke.main() == 1
    output = capfd.readouterr().out
    assert "2 of 7 checks passed" in output and "RuntimeError: two lines" in output
    found = [json.loads(line) for line in records.read_text().splitlines()]
    assert [record["config"]["check"] for record in found] == list(checks)
    assert [record["numbers"]["passed"] for record in found] == [name in ("good", "last") for name in checks]


def test_failures_of_tests_are_told_at_once(tmp_path: Path) -> None:
    """Also where the run is ended before its summary."""
    (tmp_path / "test_it.py").write_text(
        "import os, time\ndef test_a(): pass\ndef test_b(): assert 1 == 2\n"
        "def test_c(): os.kill(os.getpid(), 15); time.sleep(60)\n"
    )
    records, output = tmp_path / "records.jsonl", tmp_path / "output"
    paths = os.pathsep.join([str(ROOT / "tools"), os.environ.get("PYTHONPATH", "")])
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment = {**own, "PYTHONPATH": paths, "SDFGAN_TEST_RECORDS": str(records)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "instant_failures", "test_it.py"]
    assert run_limited(command, 30, output, environment, tmp_path).outcome == "failed (2)"
    text = output.read_text()
    assert "-- test_it.py::test_b (call)" in text and "assert 1 == 2" in text and "1 failed, 1 passed" in text
    assert json.loads(records.read_text())["numbers"] == {"passed": 1, "failed": 1}
