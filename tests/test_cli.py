"""The `sdfgan` command: its help, its flags and its one-line errors."""

from __future__ import annotations

import io
import json
import math
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh
import tyro
from PIL import Image

import sdfgan.gan
from command_line import error
from sdfgan.cli import main
from sdfgan.cli.commands import COMMANDS, Command
from sdfgan.cli.parse import is_positional
from sdfgan.errors import UserError
from sdfgan.gan import GanConfig
from sdfgan.training.config import Setting, current_name, settings_of
from sdfgan.training.progress import progress

ROOT = Path(__file__).parents[1]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[GanConfig]:
    """The configurations that `train-gan` would have trained."""
    configs: list[GanConfig] = []
    monkeypatch.setattr(sdfgan.gan, "train", configs.append)
    return configs


# ---------------------------------------------------------------------------------------- the shell


def test_overview_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == main(["-h"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sdfgan {sdfgan.__version__}\n"


@pytest.mark.parametrize("given, expected", [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_do_not_spin_unless_the_user_wants_it(given: str | None, expected: str) -> None:
    """OpenMP reads the variable once, when torch is loaded."""
    words = "import os, sys\nfrom sdfgan.__main__ import program\nprogram('--version')\n"
    words += "print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    rest = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment = rest if given is None else {**rest, "OMP_WAIT_POLICY": given}
    done = subprocess.run([sys.executable, "-c", words], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == [expected, "False"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_a_shell_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", "bash"]) == 0
    (tmp_path / "sdfgan.bash").write_text(capsys.readouterr().out)
    words = ("tra", "dataset ''", "dataset check --st", "train-gan --gan-loss ''", "render --mod")
    asked = "".join(
        f'COMP_WORDS=(sdfgan {one}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _tyro_sdfgan; echo "${{COMPREPLY[@]}}"\n'
        for one in words
    )
    command = ["bash", "-c", f"source {tmp_path}/sdfgan.bash; {asked}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [line.split() for line in done.stdout.splitlines() if line.strip()]
    assert found[0] == ["train-gan", "train-nerf", "train-sdf"]
    assert set(found[1]) == {"-h", "--help", "check", "convert", "preview", "render"}
    assert found[2][0] == "--strict" and found[3] == ["logistic", "hinge", "wgan-gp", "wgan-sn", "sphere"]
    assert found[4][0] == "--mode"
    assert main(["--print-completion", "zsh"]) == 0 and "#compdef" in capsys.readouterr().out
    assert error(capsys, "--print-completion", "fish").endswith("--print-completion must be bash or zsh, got 'fish'")


SHELL = [
    # What the shell does to the streams, the status, and the lines on stderr (None: it is not there).
    ("info >&-", 0, 0),
    ("info <&- >&- 2>&-", 0, None),
    ("nothing >&- 2>&-", 2, None),
    ("info >/dev/full", 2, 1),
    ("--help >/dev/full", 2, 1),
    ("info >/dev/full 2>/dev/full", 2, None),
    ("dataset check {folder} --resolution 8 >/dev/full", 2, 1),
    ("dataset check {folder} --resolution 8 >&-", 0, 0),
    ("dataset convert {folder} {folder}/o.zip --resolution 8 >/dev/full", 2, 1),
]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(("line", "status", "lines"), SHELL)
def test_streams_that_are_closed_or_full(tmp_path: Path, line: str, status: int, lines: int | None) -> None:
    Image.new("RGBA", (8, 8), (9, 9, 9, 9)).save(tmp_path / "a.png")
    command = f"{sys.executable} -m sdfgan {line.format(folder=tmp_path)}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status and done.stdout == ""
    assert lines is None or done.stderr.count("\n") == lines
    if lines:
        assert done.stderr.startswith("sdfgan") and "output cannot be written: No space left on device" in done.stderr
        assert not (tmp_path / "o.zip").exists()


def test_files_do_not_take_the_numbers_of_closed_streams(tmp_path: Path) -> None:
    """What a library prints to stdout must not end up in a file of the run."""
    (tmp_path / "a.py").write_text(
        "import os, sys\nfrom sdfgan.cli import main\nmain(['--version'])\n"
        "file = open(sys.argv[1], 'w')\nfor number in (1, 2):\n    os.write(number, b'x')\n"
    )
    command = f"{sys.executable} {tmp_path / 'a.py'} {tmp_path / 'file'} <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", command], cwd=ROOT, check=False).returncode == 0
    assert (tmp_path / "file").read_text() == ""


def test_names_that_an_encoding_lacks_are_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "b\u00e4ume"
    folder.mkdir()
    Image.new("RGBA", (8, 8), (9, 9, 9, 9)).save(folder / "a.png")
    for name, environment in (("ascii", {"PYTHONIOENCODING": "ascii"}), ("latin-1", {"PYTHONIOENCODING": "latin-1"})):
        command = [sys.executable, "-m", "sdfgan", "dataset", "check", str(folder), "--resolution", "8"]
        environment = {**os.environ, **environment}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, env=environment)
        escaped = b"b\\xe4ume" if name == "ascii" else b"b\xe4ume"
        assert done.returncode == 0 and done.stderr == b"" and b"checked " in done.stdout and escaped in done.stdout


@pytest.mark.parametrize("stream", [None, "closed"])
def test_progress_without_a_console(monkeypatch: pytest.MonkeyPatch, stream: str | None) -> None:
    """As under pythonw, where there is no stdout, or where it has been closed."""
    replaced = None if stream is None else io.StringIO()
    if replaced is not None:
        replaced.close()
    monkeypatch.setattr(sys, "stdout", replaced)
    with progress(2, "steps") as bar:
        bar.advance(2)
    assert bar.done == 2


def test_progress_says_something_soon(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with progress(100, "steps") as bar:
        for _ in range(40):
            now[0] += 0.6
            bar.advance()
    said = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert said == ["steps 2/100", "steps 28/100"]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_names_every_flag_and_shows_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help-all"]) == 0
    said = capsys.readouterr().out
    for setting in settings_of(COMMANDS[name].load_config()).values():
        without_flag = is_positional(setting) or tyro.conf.Suppress in setting.marks
        assert without_flag or f"  {setting.flag}" in said, setting.flag
    assert "None" not in said and f"examples:\n  # {COMMANDS[name].examples[0][1]}" in said
    assert main(["help", *name.split()]) == 0
    short = capsys.readouterr().out
    assert short == said or f"more options: sdfgan {name} --help-all" in short


def test_help_says_ranges_and_what_a_device_decides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-gan", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--steps INT Training steps (one update of each network). [> 0; default: auto (2800 on a CPU, " in said
    assert "around the vertical axis; 0 is the front), degrees. [LOW <= HIGH; default: 0 360]" in said
    assert said.index("Data: --data") < said.index("Schedule: --steps") < said.index("Hardware: --device")
    assert "--beta1" not in said
    assert main(["train-nerf", "--help-all"]) == 0
    assert "the largest; it falls exponentially. [> 0, <= 1; " in " ".join(capsys.readouterr().out.split())


def test_a_command_of_two_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset"]) == main(["dataset", "--help"]) == main(["help", "dataset"]) == 0
    assert all(said.count("dataset check ") == 1 for said in capsys.readouterr().out.split("usage")[1:])
    assert error(capsys, "dataset", "chek") == "sdfgan: error: no command 'dataset chek'; did you mean dataset check?"
    assert "unknown flag --strict" in error(capsys, "dataset", "preview", "a", "--strict")


LIGHT = """
import sys
from sdfgan.cli import main
for line in sys.argv[1:]:
    main(line.split())
loaded = {"torch", "trimesh", "skimage", "imageio", "PIL", "numpy"} & set(sys.modules)
assert not loaded, loaded
"""


def test_torch_is_loaded_only_to_run() -> None:
    """Help, a typing error and a number that is out of range take a fraction of a second."""
    lines = ["--help", "--version", "train-gam", "train-gan --stepz 3", "render a --samples 0", "evaluate"]
    lines += [f"{name} --help-all" for name in COMMANDS]
    command = [sys.executable, "-c", LIGHT, *lines]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr.count("\n") == 4, done.stderr


@pytest.mark.parametrize("name", list(COMMANDS))
def test_examples_parse(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[object] = []
    monkeypatch.setattr(Command, "load_function", lambda self: configs.append)
    for arguments, _ in COMMANDS[name].examples:
        assert main([*name.split(), *arguments.split()]) == 0
    assert len(configs) == len(COMMANDS[name].examples)


def numbers_of(name: str) -> list[Setting]:
    """The settings of a command that are numbers, or tuples of some."""
    found = settings_of(COMMANDS[name].load_config()).values()
    return [one for one in found if re.search(r"\b(int|float)\b", str(one.hint))]


def test_every_number_of_every_command_has_a_range() -> None:
    free = {(name, one.field.name) for name in COMMANDS for one in numbers_of(name) if not one.rules}
    assert free == {("train-gan", "label"), ("train-nerf", "gradient_clip")}  # what a set calls it; negative: no limit


@pytest.mark.parametrize("name", list(COMMANDS))
def test_numbers_out_of_range_are_refused(name: str) -> None:
    config_type = COMMANDS[name].load_config()
    places = {key: Path("x") for key, one in settings_of(config_type).items() if is_positional(one)}
    for setting in numbers_of(name):
        count = str(setting.hint).count("float") if "tuple" in str(setting.hint) else 1
        values = [math.nan, math.inf, -math.inf, 1e300] if "float" in str(setting.hint) else [10**30]
        if not all(rule.holds((-1.0,) * count if count > 1 else -1) for rule in setting.rules):
            values.append(-1)
        for value in values:
            given: Any = (float(value),) * count if count > 1 else value
            with pytest.raises(UserError, match=f"^{setting.flag} must "):
                config_type(**{**places, setting.field.name: given})


@pytest.mark.parametrize(
    "line",
    [
        "train-gan --batch-size 0", "train-gan --batch-size -4", "train-gan --fov nan", "train-nerf --steps 0",
        "train-sdf a --epochs -1", "train-sdf a --beta -inf", "render a --samples 0", "interpolate a --fps 0",
        "invert a b --starts 0", "evaluate a --images 1e9", "dataset check a --resolution 0", "fit-image a --steps 0",
        "import-weights a b --level nan", "extract-mesh a --resolution 1", f"dataset preview a --seed {10**30}",
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_one_line(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is loaded: no device and no file matters."""
    monkeypatch.setattr(Command, "load_function", lambda self: pytest.fail)
    assert re.search("error: .*--", error(capsys, *line.split()))


def test_flags_with_hyphens_and_underscores(trained: list[GanConfig]) -> None:
    assert main(["train-gan", "--batch-size", "8", "--output-dir", "a_b", "--dry-run", "--no-mirror"]) == 0
    assert main(["train_gan", "--batch_size=8", "--output_dir=a_b", "--dry_run", "--no_mirror"]) == 0
    assert trained == [GanConfig(batch_size=8, output_dir=Path("a_b"), dry_run=True, mirror=False)] * 2
    assert main(["train-gan", "--elevation", "-10", "30", "--background", "1", "1", "1", "--steps", "None"]) == 0
    assert trained[-1] == GanConfig(elevation=(-10.0, 30.0), background=(1.0, 1.0, 1.0))


def test_former_names_of_flags_work(trained: list[GanConfig]) -> None:
    former = ["--lr-generator=1e-4", "--lr_discriminator", "2e-4", "--discriminator-most-channels", "8"]
    assert main(["train-gan", *former]) == 0
    assert trained == [
        GanConfig(learning_rate_generator=1e-4, learning_rate_discriminator=2e-4, discriminator_max_channels=8)
    ]
    for name in ("train-nerf", "train-sdf", "fit-image"):
        assert current_name(COMMANDS[name].load_config(), "lr") == "learning_rate"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stepz", "3"], "unknown flag --stepz; did you mean --steps?"),
        (["--lr", "3"], "unknown flag --lr; did you mean --learning-rate-generator?"),
        (["--learning-rates", "3"], "unknown flag --learning-rates"),
        (["--output-dir", ""], "an argument is empty"),
        (["--output-dir="], "--output-dir: is given without a value"),
        (["--background", "1", "1"], "--background must be FLOAT FLOAT FLOAT, got '1', '1'"),
        (["--steps", "many"], "--steps"),
        (["--color-space", "cmyk"], "'cmyk' for argument '--color-space'"),
        (["--elevation", "5"], "--elevation"),
        (["--steps"], "--steps"),
        (["stray"], "stray"),
    ],
)
def test_bad_arguments_give_one_line(
    arguments: list[str], message: str, trained: list[GanConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    said = error(capsys, "train-gan", *arguments)
    assert said.startswith("sdfgan train-gan: error: ") and message in said and "--help)" in said
    assert not trained


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert error(capsys, "paint").startswith("sdfgan: error: no command 'paint': must be one of train-gan, ")
    assert error(capsys, "train-gam") == "sdfgan: error: no command 'train-gam'; did you mean train-gan?"


def test_a_path_that_no_file_can_have_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trimesh.creation.box((1, 1, 1)).export(tmp_path / "box.ply")
    folder, loop = tmp_path / ("x" * 300), tmp_path / "loop"
    loop.symlink_to(loop)
    for path, said in ((folder, "File name too long"), (loop / "run", "Too many levels of symbolic links")):
        flags = ["--output-dir", str(path), "--num-points", "1000", "--epochs", "1", "--preset", "low"]
        assert main(["train-sdf", str(tmp_path / "box.ply"), *flags]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"sdfgan train-sdf: error: {path}") and said in line


def test_text_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    """In the C locale, and with names that are no text."""
    text = r"'b\xf8x \udcff'"
    code = f"import sys, pathlib; from sdfgan.training.files import *; write_text(pathlib.Path(sys.argv[1]), {text})"
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.txt")], cwd=ROOT, env=plain, check=True)
    assert (tmp_path / "a.txt").read_bytes() == b"b\xc3\xb8x \\udcff"


def test_what_a_command_raises(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def command(raised: BaseException) -> None:
        def fail(config: GanConfig) -> None:
            raise raised

        monkeypatch.setattr(sdfgan.gan, "train", fail)

    command(UserError("photos: no such\nfolder"))
    assert error(capsys, "train-gan") == "sdfgan train-gan: error: photos: no such folder"
    for lack in (torch.OutOfMemoryError("CUDA\nTry"), RuntimeError("can't allocate memory: 9"), MemoryError()):
        command(lack)
        assert "train-gan: error: out of memory: try a smaller --resolution" in error(capsys, "train-gan")
    command(KeyboardInterrupt())
    assert main(["train-gan"]) == 130
    command(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        main(["train-gan"])


@pytest.mark.parametrize("tool", ["train_gan", "invert"])
def test_tools_are_the_command(tool: str) -> None:
    command = [sys.executable, str(ROOT / "tools" / f"{tool}.py"), "--nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"sdfgan {tool.replace('_', '-')}: error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "info"])
def test_every_command_has_its_script(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hands its arguments on, as a program, and ends with the status of the command, or that of Ctrl-C."""
    called: list[object] = []
    monkeypatch.setattr("sdfgan.cli.main", lambda *given, **options: called.append((*given, options)) or 7)
    monkeypatch.setattr(sys, "argv", ["a script", "--some", "flag"])
    name = name.split()[0]
    script = str(ROOT / "tools" / f"{name.replace('-', '_')}.py")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert called == [([name, "--some", "flag"], {"as_program": True})] and ended.value.code == 7

    def interrupted(*given: object, **options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("sdfgan.cli.main", interrupted)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert ended.value.code == 130


# ---------------------------------------------------------------------------------------- arguments


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    assert torch.__version__ in capsys.readouterr().out
    assert main(["info", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["devices"][0] == "cpu" and values.items() >= sdfgan.build_info().items()


def test_a_reader_may_have_seen_enough() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sdfgan", "train-gan", "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    os.close(write)
    assert done.returncode == 141 and done.stderr == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA_VISIBLE_DEVICES is read once, when torch first looks")
@pytest.mark.parametrize("devices", ["", "-1"])
def test_hidden_gpus_are_none(
    devices: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    for command in ("train-gan --dry-run", "train-sdf a.stl", "train-nerf --data a", "fit-image a.stl", "evaluate a"):
        assert main([*command.split(), "--device", "cuda"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith("--device cuda: this machine (or this build of torch) has no CUDA device")
