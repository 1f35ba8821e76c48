"""Text in Markdown: a reader sees what a file said, whatever it holds."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from topsideas.report.plain import escaped, markdown_table
from topsideas.report.text import printable

markdown_it = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")

TEXTS = st.text(st.sampled_from("ab 1.)(-+=#*_`~|<>&!$[]{}\\\"'/:;平\t\n\x1b\u202e"), max_size=12)


def _seen(markdown: str, tag: str) -> list[str]:
    """What stands in the elements of one kind, without any element inside."""
    rendered = markdown_it.MarkdownIt("commonmark").enable("table").render(markdown)
    return [html.unescape(found) for found in re.findall(f"<{tag}>([^<]*)</{tag}>", rendered)]


@given(TEXTS)
@example("- a")
@example("1. a")
@example("1) a")
@example("a\\")
@example("# a #")
@example("---")
@example("&amp;<b>")
def test_text_is_shown_as_it_is(text: str) -> None:
    expected = printable(text).strip()  # Markdown keeps no blanks there
    if expected:
        assert _seen(f"- {escaped(expected)}\n", "li") == [expected]
        assert _seen(f"# {escaped(expected)}\n", "h1") == [expected]


@given(st.lists(TEXTS, min_size=2, max_size=2))
def test_cells_stay_in_their_columns(row: list[str]) -> None:
    table = "\n".join(markdown_table(("a", "b"), [row]))
    assert _seen(table, "td") == [printable(cell).strip() for cell in row]


def test_what_means_nothing_is_not_escaped() -> None:
    plain = "PASS  2 ops in fp32, margin 0.28 (at most 1), 2^-4, +2.7 %, a-b.onnx!"
    assert escaped(plain) == plain
