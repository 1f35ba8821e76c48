"""What the page carries of others is what they published."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files

import pytest

VENDOR = files("topsideas.report.html").joinpath("assets", "vendor")
ROWS = re.findall(
    r"^\| `(\S+)` \| `\S+` \| \S+ \| `(\S+)` \| `([0-9a-f]{64})` \|$",
    VENDOR.joinpath("README.md").read_text("utf-8"),
    re.MULTILINE,
)


@pytest.mark.parametrize(("name", "licence", "digest"), ROWS, ids=[row[0] for row in ROWS])
def test_a_file_is_unchanged_and_has_its_licence(name: str, licence: str, digest: str) -> None:
    assert hashlib.sha256(VENDOR.joinpath(name).read_bytes()).hexdigest() == digest
    assert "Permission is hereby granted" in VENDOR.joinpath(licence).read_text("utf-8")


def test_every_file_is_listed() -> None:
    listed = {name for row in ROWS for name in row[:2]}
    assert {entry.name for entry in VENDOR.iterdir()} == listed | {"README.md"}
