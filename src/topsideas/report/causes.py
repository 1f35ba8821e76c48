"""Why an op stays in fp32, in words: of the cause and the figures that a report holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from topsideas.report.text import number, share

Json = dict[str, Any]

ENGLISH, CHINESE = "en", "zh"
LANGUAGES = (ENGLISH, CHINESE)

_Words = Mapping[str, Mapping[str, Mapping[str, str]]]


@cache
def _words() -> _Words:
    """By cause and language its ``name`` and a sentence with places for figures, ``text``."""
    text = files("topsideas.report").joinpath("causes.json").read_text(encoding="utf-8")
    words: _Words = json.loads(text)
    return words


_OWN = (" (a relative error of {born} where it is born)", "（产生处的相对误差为 {born}）")
_SHOWS = {
    "nan": ("; NaN first at {op}", "；首先在 {op} 出现 NaN"),
    "inf": ("; infinite first at {op}", "；首先在 {op} 出现无穷"),
    "error": ("; most visible at {op}, off by {error}", "；在 {op} 最明显，偏差 {error}"),
}
_ITSELF = ("it", "它自身")
_NAMELESS = ("a value from outside", "外部的值")


def cause_name(cause: str, language: str = ENGLISH) -> str:
    """The short name of a cause."""
    return _words()[cause][language]["name"]


def cause_words(op: int, cause: Json, types: Mapping[int, str], low: str, language: str) -> str:
    """One sentence: what is out of order, where it is born and where it shows.

    Args:
        op: The op's id.
        cause: ``fp32_ops[].cause`` of a report.
        types: For each op its operator.
        low: The name of the low format.
        language: ``en`` or ``zh``.
    """
    at = LANGUAGES.index(language)
    figures = cause["figures"]
    own = _own(figures, at)
    words = {key: _figure(key, value) for key, value in figures.items()}
    place = figures.get("at")
    words |= {
        "born": _born(op, cause["born"], types, at),
        "format": low,
        "own": own,
        "at": "" if place is None else _op(op, int(place), types, at),
    }
    sentence = _words()[cause["cause"]][language]["text"].format(**words)
    return sentence + _shown(op, cause, types, at)


def _own(figures: Json, at: int) -> str:
    born = figures.get("born")
    return "" if born is None else _OWN[at].format(born=share(born))


def _figure(key: str, value: float | None) -> str:
    if value is None:
        return "∞"
    if key in ("share", "before", "after"):
        return share(value)
    if key == "factor":
        return f"{value:.0f}"
    return f"{value:.5g}" if 1 <= value < 1e6 else number(value)  # the limit is 65504


def _born(op: int, born: Json, types: Mapping[int, str], at: int) -> str:
    if born["op"] is not None:
        return _op(op, born["op"], types, at)
    return f"'{born['value']}'" if born["value"] else _NAMELESS[at]


def _op(op: int, other: int, types: Mapping[int, str], at: int) -> str:
    return _ITSELF[at] if op == other else f"{other} {types.get(other, '')}".rstrip()


def _shown(op: int, cause: Json, types: Mapping[int, str], at: int) -> str:
    shows = cause["shows"]
    if shows is None or shows["op"] == op:
        return ""
    if shows["how"] == "error" and shows["op"] == cause["figures"].get("at"):
        return ""
    error = "" if shows["error"] is None else share(shows["error"])
    where = _op(op, shows["op"], types, at)
    return _SHOWS[shows["how"]][at].format(op=where, error=error)
