"""The documents build as a site without a warning, and it asks nothing of other hosts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Links to follow are fine; what a page loads by itself is not.
_LOADED = re.compile(r"""<(?:script|img|iframe)[^>]*\bsrc=["']?(?:https?:)?//|@import|fonts\.g""")


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    written = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.html")}
    for source in (ROOT / "docs").rglob("*.md"):
        assert source.relative_to(ROOT / "docs").with_suffix(".html").as_posix() in written
    pages = {name: (tmp_path / name).read_text(encoding="utf-8") for name in written}
    assert [name for name, text in pages.items() if _LOADED.search(text)] == []
    # A link that leads out of docs/ in the repository, and stays inside the site.
    assert 'href="project/examples/plate_reader/index.html"' in pages["tutorial.html"]
