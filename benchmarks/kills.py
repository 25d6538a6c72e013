"""Nothing is lost: kills every trainer and long command at random moments, fills the disk at each write, and compares
what is there in the end with an uninterrupted run, bit by bit.

    python benchmarks/kills.py                                     1,000 kills; half an hour of one core
    python benchmarks/kills.py "train-gan" --kills 20 --full 10    one command, and its disk full at ten of its writes
    python benchmarks/kills.py --ranks 100 --kills 0 --full 0      one of two processes of a run, killed
    python benchmarks/kills.py --json benchmarks/results/kills.jsonl

A run is a child of this process, which has imported everything, so that it takes a fraction of a second. Half of the
kills come at a moment that is uniform in the run's processor time; the others before, after or amid the n-th operation
on the run's files, n uniform, which `disk_faults.c` counts below the libraries. After each kill the command is given
again, with --resume where a run can be resumed, until it ends.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import importlib
import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
KILL_BEFORE, KILL_AMID, KILL_AFTER, FULL_ONCE, FULL_FROM = range(1, 6)
_LONGEST_CHAIN = 6  # kills of one run
_SLOWEST = 600.0  # seconds that a run of a fraction of one may take: else it hangs
_MAX_FAULTS = 5  # of a case, after which it is given up
_CONTINUES = 5  # of so many runs that a full disk has ended, one is resumed


def with_faults() -> None:
    """Start this program again, once, with `disk_faults.c` before libc and one thread. Needs a C compiler."""
    if "SDFGAN_DISK_FAULTS" in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="sdfgan-kills-")
    library = Path(folder) / "disk_faults.so"
    compiler = os.environ.get("CC", "cc")
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(HERE / "disk_faults.c"), "-ldl"]
    subprocess.run(command, check=True)
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {"LD_PRELOAD": str(library), "SDFGAN_DISK_FAULTS": folder, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **environment})


class Fault(NamedTuple):
    """What happens at the n-th operation in the folder."""

    action: int = 0
    number: int = 0


class Ended(NamedTuple):
    """How a child has ended."""

    status: int  # negative: the signal
    seconds: float  # of processor time
    said: str


class Child:
    """A command in a forked process."""

    def __init__(
        self, words: list[str], folder: Path, fault: Fault | None = None, environment: dict[str, str] | None = None
    ) -> None:
        self.log = folder.with_name(f"{folder.name}-{time.monotonic_ns()}.log")
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(words, folder, fault or Fault(), environment or {})

    def _run(self, words: list[str], folder: Path, fault: Fault, environment: dict[str, str]) -> None:
        status = 1
        try:
            log = os.open(self.log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            os.environ.update(environment)
            import numpy
            import torch

            seed = int.from_bytes(os.urandom(4), "little")  # nothing may depend on what else the process has drawn
            torch.manual_seed(seed)
            numpy.random.seed(seed)
            random.seed(seed)
            from sdfgan.cli import main

            faults = ctypes.CDLL(None)
            faults.disk_faults(f"{folder}/".encode(), fault.action, ctypes.c_long(fault.number), 28)
            status = main(words)
            print(f"operations {faults.disk_operations()}")
            if "SDFGAN_MODULES" in os.environ:
                Path(os.environ["SDFGAN_MODULES"]).write_text("\n".join(sys.modules))
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(status)

    @property
    def used(self) -> float:
        """Seconds of processor time until now."""
        return time.clock_gettime(~self.pid << 3 | 2)

    def kill_after(self, seconds: float) -> None:
        """SIGKILL once so much processor time is used, unless it ends before."""
        deadline = time.monotonic() + _SLOWEST
        while (
            time.monotonic() < deadline and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        ):
            if self.used >= seconds:
                os.kill(self.pid, signal.SIGKILL)
                return
            time.sleep(min(0.02, max(0.001, (seconds - self.used) / 2)))

    def wait(self, limit: float = _SLOWEST) -> Ended:
        """Its end. Raises AssertionError where it hangs."""
        deadline = time.monotonic() + limit
        while (found := os.wait4(self.pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.wait4(self.pid, 0)
                raise AssertionError(f"hangs after: {self._said()[-500:]}")
            time.sleep(0.002)
        _, status, usage = found
        said = self._said()
        self.log.unlink(missing_ok=True)
        return Ended(os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, said)

    def _said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Trial:
    """A case with its uninterrupted run, and what has become of the others."""

    def __init__(self, case: Any, data: Path, work: Path, chance: random.Random) -> None:
        from kill_cases import contents

        self.case, self.data, self.work, self.chance, self.contents = case, data, work, chance, contents
        self.counts: collections.Counter[str] = collections.Counter()
        self.faults: list[str] = []
        self.number, self.deadline = 0, math.inf
        folder = self.fresh()
        modules = work / "modules"
        self.ended = Child(case.words(data, folder), folder, environment={"SDFGAN_MODULES": str(modules)}).wait()
        if self.ended.status != 0:
            raise SystemExit(f"{case.name}: {self.ended.said}")
        for name in modules.read_text().splitlines():  # so that the next ones have them
            with suppress(Exception):
                importlib.import_module(name)
        folder_again = self.fresh()  # without the imports' time, and a disk that is never full
        first = self.ended
        self.ended = Child(case.words(data, folder_again), folder_again, Fault(FULL_FROM, 10**9)).wait()
        self.operations, self.writes = (int(one.said.rsplit("operations ", 1)[1]) for one in (first, self.ended))
        self.wanted = contents(folder)
        self.differences(folder_again, "an uninterrupted run")
        shutil.rmtree(folder)
        shutil.rmtree(folder_again)

    def fresh(self) -> Path:
        """A new folder for a run."""
        self.number += 1
        folder = self.work / f"{self.case.name.replace(' ', '-').replace(',', '')}-{self.number:05d}"
        folder.mkdir()
        return folder

    def differences(self, folder: Path, what: str) -> bool:
        """Note what a finished folder has that the uninterrupted one has not, or differently; whether there is any."""
        try:
            found = self.contents(folder)
        except Exception as error:
            return self.note(f"{what}: {type(error).__name__}: {error}")
        names = sorted(name for name in found.keys() | self.wanted.keys() if found.get(name) != self.wanted.get(name))
        for name in names[:1]:
            self.note(f"{what}: {name} is {str(found.get(name))[:300]}, not {str(self.wanted.get(name))[:300]}")
        return bool(names)

    def note(self, fault: str) -> bool:
        """Remember, and say, that something is wrong."""
        self.faults.append(fault)
        print(f"{self.case.name}: WRONG: {fault}", flush=True)
        return True

    def goes_on(self) -> bool:
        """Whether there is time left, and the case has not been found wrong too often."""
        return time.monotonic() < self.deadline and len(self.faults) < _MAX_FAULTS

    # ------------------------------------------------------------------------------------------------------- killed

    def kills(self, count: int) -> None:
        """Kill and resume until there were so many kills."""
        while self.counts["kills"] < count and self.goes_on():
            folder, history = self.fresh(), []
            wrong = False
            for attempt in range(_LONGEST_CHAIN + 1):
                kill = attempt < _LONGEST_CHAIN and self.counts["kills"] < count
                words = self.case.words(self.data, folder)
                self.counts["resumes"] += attempt > 0
                ended = self._killed(words, folder, history) if kill else Child(words, folder).wait()
                if ended.status != -signal.SIGKILL:
                    break
                self.counts["kills"] += 1
            if ended.status != 0 and "exists; name a new" not in ended.said:  # it was killed when all was done
                wrong = self.note(f"after kills {history}: status {ended.status}: {ended.said[-600:]}")
            elif "Traceback" in ended.said:
                wrong = self.note(f"after kills {history}: {ended.said[-1500:]}")
            else:
                wrong = self.differences(folder, f"after kills {history}")
            self.counts["runs"] += 1
            self.counts["lost"] += wrong
            if not wrong:
                shutil.rmtree(folder)

    def _killed(self, words: list[str], folder: Path, history: list[str]) -> Ended:
        if self.chance.random() < 0.5:
            seconds = self.chance.uniform(0, self.ended.seconds)
            history.append(f"{seconds:.3f} s")
            child = Child(words, folder)
            child.kill_after(seconds)
            return child.wait()
        fault = Fault(self.chance.choice((KILL_BEFORE, KILL_AMID, KILL_AFTER)), self.chance.randint(1, self.operations))
        history.append(str(tuple(fault)))
        return Child(words, folder, fault).wait()

    # ---------------------------------------------------------------------------------------------------- a full disk

    def full(self, points: int) -> None:
        """Fill the disk at the n-th operation that is no removal, for so many n; at every fourth of them only once."""
        for index, number in enumerate(range(1, self.writes + 1, max(1, round(self.writes / points)))):
            if not self.goes_on():
                return
            folder = self.fresh()
            words = self.case.words(self.data, folder)
            fault = Fault(FULL_ONCE if index % 4 == 3 else FULL_FROM, number)
            ended = Child(words, folder, fault).wait()
            self.counts["full disks"] += 1
            wrong = self._is_wrong(ended, folder, f"disk full {tuple(fault)}")
            if not wrong and index % _CONTINUES == 0:
                ended = Child(self.case.words(self.data, folder), folder).wait()
                self.counts["full disks resumed"] += 1
                done = ended.status == 0 or "exists; name a new" in ended.said
                wrong = not done and self.note(f"resumed after disk full {tuple(fault)}: {ended.said[-600:]}")
                wrong = wrong or self.differences(folder, f"resumed after disk full {tuple(fault)}")
            self.counts["lost"] += wrong
            if not wrong:
                shutil.rmtree(folder)

    def _is_wrong(self, ended: Ended, folder: Path, what: str) -> bool:
        """Status 2 and one line; whole files under final names, and only these."""
        if "Traceback" in ended.said or "Exception" in ended.said:
            return self.note(f"{what}: {ended.said[-1500:]}")
        errors = [line for line in ended.said.splitlines() if ": error: " in line]
        try:
            found = self.contents(folder, unfinished=True)
        except Exception as error:
            return self.note(f"{what}: {type(error).__name__}: {error}")
        if ended.status == 0 and "no report: " not in ended.said and found != self.wanted:
            return self.note(f"{what}: nothing is said of it: {ended.said[-300:]}")
        if ended.status not in (0, 2) or (ended.status == 2 and (len(errors) != 1 or "space" not in errors[0])):
            return self.note(f"{what}: status {ended.status}: {ended.said[-600:]}")
        for name, value in found.items():
            if isinstance(value, str) and value != self.wanted.get(name):
                return self.note(f"{what}: {name} is not what it should be")
        return False

    # --------------------------------------------------------------------------------------------- several processes

    def ranks(self, count: int) -> None:
        """Kill one of two processes, and what is left as torchrun does; resume, until there were so many kills."""
        folder = self.fresh()
        self._ends(self._pair(folder), None)
        self.wanted = self.contents(folder)  # the sums of two processes are rounded otherwise than those of one
        shutil.rmtree(folder)
        while self.counts["kills of a rank"] < count and self.goes_on():
            folder, history, wrong = self.fresh(), [], False
            for attempt in range(_LONGEST_CHAIN + 1):
                kill = attempt < _LONGEST_CHAIN and self.counts["kills of a rank"] < count
                pair = self._pair(folder)
                chosen = self.chance.randrange(2) if kill else None
                if chosen is not None:
                    seconds = self.chance.uniform(0, self.ended.seconds)
                    history.append(f"{chosen}: {seconds:.3f} s")
                    pair[chosen].kill_after(seconds)
                try:
                    first = self._ends(pair, chosen)
                except AssertionError as error:
                    wrong = self.note(f"after kills {history} of a rank: {error}")
                    break
                said = "".join(one.said for one in first)
                if "Traceback" in said:
                    wrong = self.note(f"after kills {history} of a rank: {said[-1500:]}")
                    break
                if all(one.status == 0 for one in first):
                    break
                killed = chosen is not None and first[chosen].status == -signal.SIGKILL
                self.counts["kills of a rank"] += killed
                if not killed:
                    wrong = self.note(f"after kills {history} of a rank: {[one.status for one in first]} {said[-600:]}")
                    break
            wrong = wrong or self.differences(folder, f"after kills {history} of a rank")
            self.counts["lost"] += wrong
            self.counts["runs of two"] += 1
            if not wrong:
                shutil.rmtree(folder)

    def _pair(self, folder: Path) -> list[Child]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        words = self.case.words(self.data, folder)
        return [Child(words, folder, environment={**common, "RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")]

    def _ends(self, pair: list[Child], chosen: int | None) -> list[Ended]:
        """What has become of both, the first to fail having been followed by SIGTERM for the other."""
        order = [0, 1] if chosen is None else [chosen, 1 - chosen]
        first = pair[order[0]].wait()
        if first.status != 0:
            with suppress(ProcessLookupError):
                os.kill(pair[order[1]].pid, signal.SIGTERM)
        second = pair[order[1]].wait(30)
        return [first, second] if order[0] == 0 else [second, first]

    def torchrun(self, count: int) -> None:
        """Kill one of two processes that the real torchrun has started, after a checkpoint each time, and resume."""
        straight, folder = self.fresh(), self.fresh()
        assert self._torchrun(straight, count, None) == 0
        for _ in range(count):
            if self._torchrun(folder, count, self.chance.randrange(2)) == 0:
                break
            self.counts["kills under torchrun"] += 1
        status = self._torchrun(folder, count, None)
        self.wanted = self.contents(straight)
        wrong = status != 0 and self.note(f"status {status} under torchrun, after kills")
        wrong = wrong or self.differences(folder, "after kills under torchrun")
        self.counts["lost"] += wrong

    def _torchrun(self, folder: Path, count: int, killed: int | None) -> int:
        words = self.case.words(self.data, folder)
        if "--resume" not in words:
            words += ["--steps", str(2 * count + 4)]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "sdfgan"]
        before = self._newest(folder)
        with (folder.with_name(f"{folder.name}.log")).open("a") as log:
            agent = subprocess.Popen([*command, *words], stdout=log, stderr=subprocess.STDOUT)
            deadline = time.monotonic() + _SLOWEST
            while killed is not None and agent.poll() is None and self._newest(folder) == before:
                assert time.monotonic() < deadline, f"no checkpoint under torchrun in {folder}"
                time.sleep(0.01)
            if killed is not None and agent.poll() is None:
                time.sleep(0.3 * self.chance.random())
                found = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
                with suppress(ProcessLookupError, IndexError):
                    os.kill(int(found[killed]), signal.SIGKILL)
            return agent.wait(_SLOWEST)

    def _newest(self, folder: Path) -> str:
        return max((path.name for path in folder.glob(f"{self.case.output}/{self.case.begun}")), default="")


def trials(names: list[str], data: Path, work: Path, seed: int) -> Iterator[Trial]:
    """Of the cases that are named, or of all."""
    from kill_cases import CASES, make_data

    def run(words: list[str]) -> None:
        from sdfgan.cli import main

        if main(words) != 0:
            raise SystemExit(f"could not make what the cases read: {words}")

    cases = [case for case in CASES if not names or case.name in names]
    if unknown := set(names) - {case.name for case in cases}:
        raise SystemExit(f"no case {unknown.pop()!r}: {', '.join(case.name for case in CASES)}")
    if (pid := os.fork()) == 0:  # here, so that this process has never computed: what it forks would inherit threads
        make_data(data, cases, run)
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(pid, 0)[1] != 0:
        raise SystemExit("could not make what the cases read")
    for case in cases:
        yield Trial(case, data, work, random.Random(f"{seed} {case.name}"))


def main() -> int:
    """Try every case, say what came of it, and append records."""
    with_faults()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="which; default: all")
    parser.add_argument("--kills", type=int, default=84, help="of each case")
    parser.add_argument("--full", type=int, default=40, help="operations of each at which the disk is full; 0: none")
    parser.add_argument("--ranks", type=int, default=0, help="kills of one of two processes, of each case that can")
    parser.add_argument("--torchrun", type=int, default=0, help="kills under the real torchrun, of the first case")
    parser.add_argument("--minutes", type=float, default=math.inf, help="no new run of a case begins after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="work in this new folder, in which wrong runs are kept")
    parser.add_argument("--json", type=Path, help="append records here")
    arguments = parser.parse_args()
    import torch

    from measure import environment

    torch.set_num_threads(1)
    work = (arguments.keep or Path(os.environ["SDFGAN_DISK_FAULTS"]) / "work").absolute()
    work.mkdir(parents=True)
    os.environ["SDFGAN_CACHE"] = str(work / "cache")
    total: collections.Counter[str] = collections.Counter()
    for trial in trials(arguments.cases, work / "data", work, arguments.seed):
        used = time.process_time(), os.times()
        trial.deadline = time.monotonic() + 60 * arguments.minutes
        if arguments.full:
            trial.full(arguments.full)
        if arguments.kills:
            trial.kills(arguments.kills)
        if arguments.ranks and trial.case.name.startswith(("train-gan", "train-nerf")):
            trial.ranks(arguments.ranks)
        if arguments.torchrun and not total:
            trial.torchrun(arguments.torchrun)
        now = os.times()
        seconds = sum(now[:4]) - sum(used[1][:4])
        record = {"tried": trial.case.name, **trial.counts, "cpu_seconds": round(seconds, 1), "seed": arguments.seed}
        record |= {"operations": trial.operations, "writes": trial.writes, "faults": trial.faults}
        total.update(trial.counts)
        print(f"{trial.case.name}: {dict(trial.counts)}, {trial.operations} operations, {seconds:.0f} s", flush=True)
        if arguments.json is not None:
            with arguments.json.open("a") as file:
                file.write(json.dumps({"benchmark": "kills", **record, **environment()}) + "\n")
    print(f"all: {dict(total)}; lost: {total['lost']}")
    if not total["lost"]:
        shutil.rmtree(work)
    return 1 if total["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
