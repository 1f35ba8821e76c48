"""A hook of mkdocs: brings the documents from outside this folder into the site, and mends links.

In the repository links lead from file to file, also out of ``docs/``. The site holds those files
under ``project/``; links to what it does not hold, like sources, become plain text.
"""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ELSEWHERE = (
    "README.md",
    "README.zh-CN.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "benchmarks/executor.md",
    "examples/plate_reader/README.md",
    "examples/small_networks/README.md",
    "examples/notebook/plate_reader.ipynb",
)

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the documents from elsewhere."""
    for name in ELSEWHERE:
        files.append(File.generated(config, f"project/{name}", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mends the links of a page, but not what looks like one in a code block."""
    here = page.file.src_uri
    outside = here.startswith("project/")
    folder = (ROOT / here.removeprefix("project/") if outside else DOCS / here).parent
    code = _FENCE.findall(markdown)
    text = [
        _LINK.sub(lambda m: _mended(m, here, folder, files), part)
        for part in _FENCE.split(markdown)
    ]
    return "".join(p + c for p, c in zip(text, [*code, ""], strict=True))


def _mended(link: re.Match[str], here: str, folder: Path, files: Files) -> str:
    label, target = link.groups()
    if re.match(r"\w+:|#", target):
        return link[0]
    name, mark, anchor = target.partition("#")
    path = (folder / name).resolve()
    inside = path.is_relative_to(DOCS)
    uri = (path.relative_to(DOCS) if inside else "project" / path.relative_to(ROOT)).as_posix()
    if files.get_file_from_path(uri) is None:
        return label
    return f"[{label}]({os.path.relpath(uri, Path(here).parent)}{mark}{anchor})"
