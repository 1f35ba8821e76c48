"""Why an op stays in fp32, in words: of the cause and the figures that a report holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from topsideas.report.text import number, share

Json = dict[str, Any]

ENGLISH, CHINESE = "en", "zh"
LANGUAGES = (ENGLISH, CHINESE)

# A short name of each cause, for columns and legends.
NAMES: Mapping[str, tuple[str, str]] = {
    "mask_sentinel": ("mask sentinel", "掩码哨兵值"),
    "constant_overflow": ("constant out of range", "常量超出范围"),
    "input_overflow": ("overflow on read", "输入溢出"),
    "output_overflow": ("output overflow", "输出溢出"),
    "accumulation_overflow": ("accumulation overflow", "累加溢出"),
    "epsilon_underflow": ("epsilon underflow", "epsilon 下溢"),
    "underflow": ("underflow", "下溢"),
    "integers": ("whole numbers too large", "整数过大"),
    "cancellation": ("cancellation", "相消"),
    "amplified_rounding": ("amplified rounding", "舍入被放大"),
    "rounding": ("accumulated rounding", "舍入累积"),
}

_SENTENCES: Mapping[str, tuple[str, str]] = {
    "mask_sentinel": (
        "{born} holds the mask value {most}, which {format} cannot (at most {limit}): it becomes "
        "infinite or is cut, and infinity times zero is NaN",
        "{born} 含有掩码值 {most}，超出 {format} 的范围（最大 {limit}）：会变成无穷或被截断，无穷乘零得 NaN",
    ),
    "constant_overflow": (
        "{born} holds {most}, beyond the largest {format} number {limit} ({share} of its elements)",
        "{born} 含有 {most}，超过 {format} 的最大值 {limit}（占其元素的 {share}）",
    ),
    "input_overflow": (
        "it reads up to {most} from {born}, beyond the largest {format} number {limit} ({share} of "
        "the elements)",
        "它从 {born} 读到最大 {most} 的值，超过 {format} 的最大值 {limit}（占元素的 {share}）",
    ),
    "output_overflow": (
        "it writes up to {most}, beyond the largest {format} number {limit} ({share} of the "
        "elements)",
        "它写出最大 {most} 的值，超过 {format} 的最大值 {limit}（占元素的 {share}）",
    ),
    "accumulation_overflow": (
        "its input (up to {read}) and output (up to {written}) fit, but the sum inside reaches "
        "{inside}, beyond {limit}",
        "输入（最大 {read}）和输出（最大 {written}）都在范围内，但内部求和达到 {inside}，超过 {limit}",
    ),
    "epsilon_underflow": (
        "{born} guards against zero with values down to {least}, which {format} stores as zero "
        "(its smallest number is {limit})",
        "{born} 用小至 {least} 的值防止除零或取零的对数，而 {format} 会把它存成零（最小可表示 {limit}）",
    ),
    "underflow": (
        "values of {born} down to {least} are stored as zero in {format} ({share} of the elements; "
        "its smallest number is {limit})",
        "{born} 中小至 {least} 的值在 {format} 中被存成零（占元素的 {share}；最小可表示 {limit}）",
    ),
    "integers": (
        "{born} counts up to {most} in a float; beyond {limit} {format} does not hold every whole "
        "number ({share} of the elements become another one)",
        "{born} 用浮点数计数到 {most}；超过 {limit} 后 {format} 不能表示每个整数（{share} 的元素变成别的数）",
    ),
    "cancellation": (
        "it rounds to a relative error of {before}, and {at} subtracts what is nearly equal: there "
        "the error is {after}, {factor} times as large",
        "舍入的相对误差为 {before}，{at} 对相近的数做减法，误差变为 {after}，放大 {factor} 倍",
    ),
    "amplified_rounding": (
        "it rounds to a relative error of {before}, and {at} is steep: there the error is {after}, "
        "{factor} times as large",
        "舍入的相对误差为 {before}，{at} 变化陡峭，误差变为 {after}，放大 {factor} 倍",
    ),
    "rounding": (
        "nothing leaves the range: its rounding{own} adds up with that of the other low ops",
        "没有超出范围：它的舍入{own}与其他低精度算子的舍入累积起来",
    ),
}

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
    return NAMES[cause][LANGUAGES.index(language)]


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
    sentence = _SENTENCES[cause["cause"]][at].format(**words)
    return sentence + _shown(op, cause, types, at)


def _own(figures: Json, at: int) -> str:
    born = figures.get("born")
    return "" if born is None else _OWN[at].format(born=share(born))


def _figure(key: str, value: float | None) -> str:
    if value is None:
        return "∞"
    if key in ("share", "before", "after"):
        return share(value)
    return f"{value:.0f}" if key == "factor" else number(value)


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
