"""Sphinx: how the pages look, and how the docstrings, which are plain text, are read. Built by tools/build_docs.py."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.ext.napoleon import Config, GoogleDocstring

import sdfgan

project = "sdfgan"
author = "the sdfgan authors"
version = release = sdfgan.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc"]
root_doc = "README"
html_theme = "furo"
html_title = f"sdfgan {release}"
html_show_copyright = False
html_theme_options = {"top_of_page_buttons": []}
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["pages.css"]
pygments_style, pygments_dark_style = "friendly", "native"

myst_heading_anchors = 4
myst_links_external_new_tab = False
nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parent.parent / "build" / "docs-cache")
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_execution_show_tb = True
nb_merge_streams = True

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 96
_SECTIONS = Config(napoleon_use_rtype=False, napoleon_use_ivar=True)  # Args, Returns ...

_SECTION_NAMES = ("Args:", "Returns:", "Raises:", "Attributes:", "Yields:")
_LONG = 16  # so many fields are those of a command's settings, which its page describes


def plain_text(line: str) -> str:
    """A line of a docstring as reStructuredText: `code` as literals, and nothing else that means anything."""
    parts = re.split(r"(`[^`]+`)", line)
    for i, part in enumerate(parts):
        if i % 2:
            glued = parts[i + 1][:1]
            parts[i] = f"`{part}`" + ("\\ " if glued and (glued.isalnum() or glued == "_") else "")
        else:
            parts[i] = re.sub(
                r"(?<!\w)\*\w+\*|([\\*|`])|_(?!\w)", lambda one: one[0] if one[0][1:] else "\\" + one[0], part
            )
    return "".join(parts)


def as_text(lines: list[str]) -> Iterator[str]:
    """Text as reStructuredText: names with a text beside them become a list, formulas are shown as they are typed."""
    section = False
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines).strip()):
        rows = paragraph.split("\n")
        section = rows[0].rstrip() in _SECTION_NAMES or (section and rows[0].startswith(" "))
        named = re.compile(r"(\S+(?: \S+)*) {3,}(\S.*)")
        if not section and (named.fullmatch(rows[0]) or all(map(named.fullmatch, rows))):
            for row in rows:
                found = named.fullmatch(row)
                yield (
                    f"* **{plain_text(found[1])}**: {plain_text(found[2])}" if found else f"  {plain_text(row.strip())}"
                )
        else:
            yield from _with_formulas(rows, section)
        yield ""


def _with_formulas(rows: list[str], section: bool) -> Iterator[str]:
    literal = False
    for before, row in zip(["", *rows], rows, strict=False):
        section = section or row.rstrip() in _SECTION_NAMES
        indented = row.startswith("  ") and not section
        if indented and not literal and not re.match(r" *- ", before) and not re.match(r" *- ", row):
            literal = True
            yield from ["", ".. code-block:: text", ""]
        elif literal and not indented:
            literal = False
            yield ""
        yield f"    {row}" if literal else plain_text(row)


def described_fields(kind: type) -> list[str]:
    """The fields of a class with the comment beside each, which may go on below it."""
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        return []
    (body,) = [node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    rows, found = source.split("\n"), []
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and not node.target.id.startswith("_"):
            comment = rows[node.end_lineno - 1][node.end_col_offset :].strip()  # type: ignore[operator]
            for below in rows[node.end_lineno :]:  # type: ignore[misc]
                if not comment or not below.strip().startswith("#"):
                    break
                comment += " " + below.strip()
            said = " ".join(re.sub(r"(^|\s)#\s?", " ", comment).split())
            found.append(f"    {node.target.id} ({ast.unparse(node.annotation)}): {said}")
    return ["", "Attributes:", *found] if found and any(not one.endswith(": ") for one in found) else []


def fields_of(kind: type) -> int:
    return len(dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else 0


def process_docstring(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    lines[:] = list(as_text(lines))
    if what == "data":  # whose docstring is that of their type
        lines[:] = ["Keys: " + ", ".join(f"``{key}``" for key in value)] if isinstance(value, dict) else []
    if what == "class":
        if fields_of(value) > _LONG:
            lines += ["Its fields are the flags of its command, with underscores for hyphens."]
        else:
            lines += map(plain_text, described_fields(value))
    if what in ("class", "exception", "function", "method"):
        lines[:] = GoogleDocstring(lines, _SECTIONS, app, what, name, value, options).lines()


def process_signature(app: Any, what: str, name: str, value: Any, options: Any, signature: str, returns: str) -> Any:
    return ("(**settings)", "") if what == "class" and fields_of(value) > _LONG else None


def skip_member(app: Any, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Fields are described with their class; a command's settings on the page of the command."""
    return True if what == "class" and not (inspect.isroutine(value) or isinstance(value, property)) else None


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("autodoc-skip-member", skip_member)


exclude_patterns = ["examples/*.ipynb"]  # which is for people to run
