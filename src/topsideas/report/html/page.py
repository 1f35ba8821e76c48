"""The page: one file with its styles, scripts and data inside, and nothing that it would load."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

from topsideas.errors import UsageError
from topsideas.report.html.view import view
from topsideas.report.text import printable

Json = dict[str, Any]

OPENING = b"<!doctype html>\n<!-- topsideas report -->"
"""What every page begins with."""

_STYLES = ("vendor/uPlot.min.css", "style.css")
_SCRIPTS = (
    "vendor/uPlot.iife.min.js",
    "vendor/dagre.min.js",
    "words.js",
    "dom.js",
    "table.js",
    "charts.js",
    "graph.js",
    "sections.js",
    "main.js",
)
# Of a name in the data nothing can end the element that holds it, or begin another.
_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def page(report: Json) -> str:
    """The report as a page.

    Args:
        report: A report, as :func:`topsideas.report.reading.read_whole` returned it.

    Raises:
        UsageError: Jinja2, of the extra ``report``, is not installed.
    """
    template = _template()
    style = "\n".join(_asset(name) for name in _STYLES)
    scripts = [_asset(name) for name in _SCRIPTS]
    data = json.dumps(view(report), allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    text: str = template.render(
        title=printable(report["model"]["path"] or "ONNX"),
        style=style,
        scripts=scripts,
        data=data.translate(_ESCAPED),
        style_hash=_hash(style),
        script_hashes=[_hash(script) for script in scripts],
    )
    return text


def check_renderer() -> None:
    """Raise UsageError if pages cannot be made here, before hours are spent on one."""
    _template()


def _template() -> Any:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise UsageError(
            "the HTML report needs Jinja2. Remedy: pip install 'topsideas[report]'"
        ) from error
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(_asset("page.html.j2"))


def _asset(name: str) -> str:
    path = files("topsideas.report.html").joinpath("assets", *name.split("/"))
    return path.read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    """The source expression of a content security policy for one element's text."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
