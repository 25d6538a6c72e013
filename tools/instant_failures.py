"""A plugin of pytest for runs that may be ended at any time: tells failures at once, and keeps counts as a record.

    PYTHONPATH=tools SDFGAN_TEST_RECORDS=records.jsonl pytest -p instant_failures

SIGTERM then ends the run like Ctrl-C, with pytest's summary.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

_LINES = 25  # of a failure, the last ones
_counts: Counter[str] = Counter()


def pytest_configure(config: pytest.Config) -> None:
    """The first process alone ends politely."""
    if not os.environ.get("PYTEST_XDIST_WORKER"):
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Where tests run in several processes, this is called in the first one as well."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        return
    if report.failed:
        _counts["failed"] += 1
        lines = report.longreprtext.splitlines()[-_LINES:]
        print("\n".join(["", f"-- {report.nodeid} ({report.when})", *lines]), flush=True)
    elif report.when == "call" or report.skipped:
        _counts[report.outcome] += 1


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file that cannot be imported."""
    if report.failed and not os.environ.get("PYTEST_XDIST_WORKER"):
        _counts["not collected"] += 1
        print("\n".join(["", f"-- {report.nodeid}", *report.longreprtext.splitlines()[-_LINES:]]), flush=True)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Appends the counts to the records, before anybody waits for other processes."""
    path = os.environ.get("SDFGAN_TEST_RECORDS")
    if path and not os.environ.get("PYTEST_XDIST_WORKER"):
        record = {"case": "tests", "config": {}, "variant": "pytest", "numbers": dict(_counts), "times_faster_than": {}}
        with Path(path).open("a") as file:
            file.write(json.dumps(record) + "\n")
