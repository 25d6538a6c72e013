"""The documentation: its Python runs, its links lead somewhere, its flags exist."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import re
from pathlib import Path

import pytest
import tyro

import sdfgan
from build_docs import navigation
from cases import CASES
from doc_images import IMAGES, MADE, NOTES, checksum, differing
from performance_page import TABLES, performance_page, records
from reference_pages import API, api_pages, command_groups, command_pages, public_names
from sdfgan.cli import COMMANDS
from sdfgan.cli.commands import Command
from sdfgan.cli.parse import is_positional
from sdfgan.compat.flags import OLD_FLAGS
from sdfgan.gan import GanConfig
from sdfgan.training.config import settings_of

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S):
        exec(compile(block, str(page), "exec"), namespace)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
            assert not anchor or anchor in anchors(page.parent / target if target else page), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_merge_is_left_half_done(page: Path) -> None:
    assert re.findall(r"^(?:<{7}|>{7}) .*$", page.read_text(), re.M) == []


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "code.md"], ids=name)
def test_paths_exist(page: Path) -> None:
    """Of files in the folders of the repository."""
    named = re.findall(r"(?:benchmarks|csrc|docs|sdfgan|tests|tools)/[\w./-]*\w", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == [] and named


def flags_of(command: Command) -> set[str]:
    """Without their dashes; only those that are on or off can be turned off by `--no-`."""
    settings = settings_of(command.load_config()).values()
    return {one.flag[2:] for one in settings} | {f"no-{one.flag[2:]}" for one in settings if one.hint is bool}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_take_the_flags_that_they_are_shown_with(page: Path) -> None:
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.M | re.S):
        for tool, rest in re.findall(r"(?:tools/|sdfgan )((?:dataset(?:\.py)? )?[a-z_-]+)(?:\.py)?([^#\n]*)", block):
            command = COMMANDS.get(tool.replace("_", "-").replace(".py", ""))
            if command is None:
                continue
            known = flags_of(command) | {"help", "help-all"}
            for flag in re.findall(r"--([a-z][a-z0-9-]+)(?![A-Za-z_])", rest):  # --numLayers: older names
                assert flag in known, f"{tool}: --{flag}"


def test_images_are_those_that_their_commands_made() -> None:
    """Each is shown on a page, listed with how it is made, and the file that this left."""
    notes = json.loads(NOTES.read_text())
    shown = {image for page in PAGES for image in re.findall(r"images/([\w-]+\.(?:png|webp))", page.read_text())}
    assert {path.name for path in IMAGES.iterdir()} - {NOTES.name} == shown == set(MADE) == set(notes)
    for name, note in notes.items():
        assert note["sha256"] == checksum(IMAGES / name), f"{name}: python tools/doc_images.py {name} ..."
        for command in MADE[name].commands:
            assert (ROOT / command.split()[1]).exists(), command


def test_the_image_of_the_readme_is_what_its_lines_draw(tmp_path: Path) -> None:
    MADE["solid.png"].by(tmp_path / "solid.png", [])
    old = differing(tmp_path / "solid.png", IMAGES / "solid.png")
    assert old <= 5e-4, f"{old:.2%} of its pixels differ: python tools/doc_images.py solid.png"


def test_flags_of_all_commands_exist() -> None:
    flags = {"help", "version", "logdir", "nproc-per-node", "json", "pictures", "rounds", "threads"}
    flags |= {"lock_view_dependence", "image_size", "num_steps", "ray_step_multiplier"}  # of old
    flags |= {flag[2:] for old in OLD_FLAGS.values() for flag in old}
    for command in COMMANDS.values():
        flags |= flags_of(command)
    for page in ("data", "evaluate", "render-and-export", "older-projects", "training-runs"):
        for flag in re.findall(r"--([a-z][a-z0-9_-]+)", (ROOT / "docs" / f"{page}.md").read_text()):
            assert flag in flags, f"{page}: {flag}"


def test_flags_exist() -> None:
    flags = {field.name.replace("_", "-") for field in dataclasses.fields(GanConfig)} | {"help", "help-all"}
    flags |= {f"no-{one.flag[2:]}" for one in settings_of(GanConfig).values() if one.hint is bool}
    flags |= set(re.findall(r'"--([a-z]+)"', (ROOT / "benchmarks" / "gan.py").read_text()))
    for flag in re.findall(r"--([a-z][a-z0-9-]+)", (ROOT / "docs" / "train-a-gan.md").read_text()):
        assert flag in flags, flag


def test_the_readme_has_both_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "python tools/train_gan.py\n" in readme and "<!-- the test command -->" in readme


def test_ci_runs_what_the_pages_say() -> None:
    """A public forge has the commands of the README and of `.ci/run`, which reads the README's and CONTRIBUTING's."""
    marked = r"<!-- {} -->\n```bash\n(.*)\n```"
    (quick,) = re.findall(marked.format("the test command"), (ROOT / "README.md").read_text())
    (slow,) = re.findall(marked.format("the slow tests"), (ROOT / "CONTRIBUTING.md").read_text())
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert all(f"- run: {command}\n" in workflow for command in quick.split(" && ")[2:])
    assert quick.endswith(' -m "not slow"') and slow.endswith(" -m slow")
    ours = (ROOT / ".ci" / "run").read_text()
    checks = [line for line in ours.splitlines() if line.startswith(("ruff ", "mypy"))]
    assert len(checks) == 3 and all(f"- run: {check}\n" in workflow for check in checks)
    docs = (ROOT / ".github" / "workflows" / "docs.yml").read_text()
    (build,) = re.findall(marked.format("the documentation"), (ROOT / "CONTRIBUTING.md").read_text())
    assert f"- run: {build.partition('   #')[0]}\n" in docs
    assert "\npython tools/build_docs.py & docs=$!" in ours and ours.endswith('\nwait "$docs"\n')  # its status counts


def test_the_list_of_pages_has_each_page_once() -> None:
    listed = [page for pages in navigation((ROOT / "docs" / "README.md").read_text()).values() for page in pages]
    wanted = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"README"}
    wanted |= {"../CONTRIBUTING", "../CHANGELOG", "../SECURITY"}
    assert sorted(listed) == sorted(wanted)


def said_by_the_code() -> list[str]:
    """Every string in the package, with * for what is filled in."""
    found = []
    for path in (ROOT / "sdfgan").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [one.value if isinstance(one, ast.Constant) else "*" for one in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"{[^}]*}", "*", node.value))
    return found


def test_the_messages_of_troubleshooting_are_those_that_the_code_prints() -> None:
    """What is quoted there, word for word; dots stand for what is filled in, or left out."""
    quoted = re.findall(r"^### `(.*)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.M)
    said = said_by_the_code()
    for message in quoted:
        parts = [re.escape(part.strip()) for part in message.split("...") if part.strip(" :")]
        assert any(re.search(".*".join(parts), one, re.S) for one in said), message
    assert len(quoted) >= 20


def test_the_reference_describes_every_public_name_once() -> None:
    unnamed = {"pictures", "rendering", "selftest", "training", "viewer"}  # former, parts of others, nothing public
    assert {name for name in API if "." not in name} - {"errors"} == set(sdfgan._SUBPACKAGES) - unnamed
    pages = api_pages()
    described: dict[int, str] = {}
    for name in API:
        module, page = importlib.import_module(f"sdfgan.{name}"), pages[f"api/{name}.md"]
        for public in public_names(module):
            path = f"sdfgan.{name}.{public}"
            here = re.findall(rf"^.. auto(?:class|function|data):: {re.escape(path)}$", page, re.M)
            linked = re.findall(rf"^- `{re.escape(path)}`: {{py:obj}}`([\w.]+)`$", page, re.M)
            assert len(here) + len(linked) == 1, path
            value = getattr(module, public)
            if here and not isinstance(value, tuple | dict):
                assert described.setdefault(id(value), path) == path
            if linked:
                assert described[id(value)] == linked[0]
    assert len(described) > 150
    assert all(f"sdfgan.{public}" in pages["api.md"] for public in sdfgan.__all__)


def test_the_citation_is_of_this_version() -> None:
    assert f"\nversion: {sdfgan.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_reference_has_every_flag_of_every_command() -> None:
    grouped = [name for names in command_groups().values() for name in names]
    pages = command_pages()
    assert sorted(grouped) == sorted(COMMANDS)
    for name, command in COMMANDS.items():
        page = pages[f"commands/{name.replace(' ', '-')}.md"]
        settings = settings_of(command.load_config()).values()
        wanted = {one.flag for one in settings if tyro.conf.Suppress not in one.marks and not is_positional(one)}
        assert wanted - set(re.findall(r"--[a-z][a-z0-9-]+", page)) == set()
        assert page.count("```") % 2 == 0 and page.startswith(f"# sdfgan {name}\n")


def test_every_measurement_is_shown_with_device_and_commit() -> None:
    page, found = performance_page(), records()
    counted = sum(int(count) for count in re.findall(r": (\d+) records$", page, re.M))
    shown = [one for one in found if any(table.belongs(one) for table in TABLES)]
    models = [one for one in found if one.get("suite") == "models"]
    assert len(shown) + len(models) + counted == len(found)
    rows = re.findall(r"^\| .* \| (.*) \| (\d*) \| `([0-9a-f]{7})` \|$", page, re.M)
    assert len(rows) >= len(shown) > 200 and all(device for device, _, _ in rows)


def claims() -> list[list[str]]:
    """Claim, command, record and test of each row of docs/trust.md."""
    lines = (ROOT / "docs" / "trust.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]
    return [row for row in rows if row[0] != "claim"]


def test_claims_have_commands_that_can_be_given() -> None:
    """Scripts and their flags, cases of bench.py, files of tests."""
    for claim, command, _, _ in claims():
        for given in re.findall("`((?:python|pytest) [^`]*)`", command):
            program, *words = given.split()
            paths = words[:1] if program == "python" else [word for word in words if word.startswith("tests/")]
            assert paths and all((ROOT / path).exists() for path in paths), claim
            flags = [word for word in words if word.startswith("--")]
            if paths[0].startswith("benchmarks/"):
                source = (ROOT / paths[0]).read_text() + (ROOT / "benchmarks" / "gpu_records.py").read_text()
                assert all(f'"{flag}"' in source for flag in flags), claim
            elif paths[0].startswith("tools/") and (name := Path(paths[0]).stem.replace("_", "-")) in COMMANDS:
                known = {field.name.replace("_", "-") for field in dataclasses.fields(COMMANDS[name].load_config())}
                assert {flag[2:] for flag in flags} <= known, claim
            if paths[0] == "benchmarks/bench.py":
                cases = [word for word in words[1:] if not word.startswith("--") and not word.isdigit()]
                assert cases and set(cases) - {"cuda"} <= set(CASES), claim
        assert "`" in command or command in ("the same", "in the text"), claim


def test_claims_have_the_records_that_they_name() -> None:
    """And every file of records is named."""
    files = {path.name: path.read_text().splitlines() for path in (ROOT / "benchmarks" / "results").glob("*.jsonl")}
    named = set()
    for claim, _, record, _ in claims():
        assert record, claim
        for file, wanted in re.findall(r"`([\w-]+\.jsonl): ([^`]*)`", record):
            pairs = dict(re.findall(r"(\w+)=(.*?)(?:, (?=\w+=)|$)", wanted))
            lines = [json.loads(line) for line in files[file]]
            assert any(all(str(one.get(k)).startswith(v) for k, v in pairs.items()) for one in lines), (claim, wanted)
            named.add(file)
    assert named == set(files)


def test_the_layout_of_the_code_names_every_file_of_a_training() -> None:
    page = (ROOT / "docs" / "code.md").read_text()
    for folder in ("gan", "nerf", "sdf", "inverse", "training"):
        for path in (ROOT / "sdfgan" / folder).iterdir():
            if path.stem not in ("__init__", "__pycache__"):
                assert f"`{path.stem}`" in page or f"{path.stem}.py" in page, path


def test_claims_have_tests() -> None:
    for claim, _, _, guards in claims():
        found = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", guards)
        assert found, claim
        for path, test in found:
            source = (ROOT / path).read_text()
            assert f"\ndef {test}(" in source if test else "\ndef test_" in source, f"{path}::{test}"
