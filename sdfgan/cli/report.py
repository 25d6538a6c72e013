"""`sdfgan report`: a page about a run, or one that compares several."""

from __future__ import annotations

from pathlib import Path

from sdfgan.cli.arguments import output_path
from sdfgan.cli.flags import ReportConfig
from sdfgan.errors import UserError
from sdfgan.training.report import compare_runs, write_report


def run(config: ReportConfig) -> None:
    """Write it, and say where it is."""
    if not config.runs:
        raise UserError("name the folder of a run, or of several")
    if config.output is None and len(config.runs) == 1:
        file = write_report(config.runs[0])
    else:
        reads = [file for run in config.runs for file in run.glob("*") if file.name != "report.html"]
        file = compare_runs(config.runs, output_path(config.output, Path("report.html"), reads=reads))
    print(f"done: open {file}")
