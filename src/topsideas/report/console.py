"""The report on a terminal: what matters first. Shows what the JSON holds and computes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from topsideas.report.causes import cause_name
from topsideas.report.output import plain_console, plain_text, standard_output
from topsideas.report.repairs import repair_lines
from topsideas.report.text import (
    change,
    count,
    margin_of,
    number,
    ops_in_fp32,
    printable,
    share,
    similarity,
)

Json = dict[str, Any]

# Rows shown unless all are asked for.
_ROWS = 15


def show(report: Json, *, quiet: bool = False, verbose: bool = False) -> None:
    """Print a report to standard output.

    Args:
        report: What :func:`topsideas.report.document.document` made, or a file of it.
        quiet: The verdict line only.
        verbose: All ops, not the worst ones only.
    """
    _show(standard_output(), report, quiet=quiet, verbose=verbose)


def captured(report: Json, *, verbose: bool = False) -> str:
    """What :func:`show` prints to a file."""
    console = plain_console()
    _show(console, report, quiet=False, verbose=verbose)
    return plain_text(console)


def _show(console: Console, report: Json, *, quiet: bool, verbose: bool) -> None:
    console.print(_headline(report))
    if quiet:
        return
    _network(console, report)
    if report["fp32_nodes"] and not _is_unknown(report):
        _kept(console, report, verbose=verbose)
    _repairs(console, report)
    if "pareto" in report:
        _pareto(console, report, verbose=verbose)
    if report["op_statistic"]:
        _ops(console, report, verbose=verbose)
    _closing(console, report)


def headline(report: Json) -> str:
    """The verdict in one line."""
    return f"{report['verdict'].upper()}  {', '.join(_verdict_parts(report))}"


def _headline(report: Json) -> Text:
    line = Text(printable(headline(report)))
    line.stylize("bold green" if report["verdict"] == "pass" else "bold red", 0, 4)
    return line


def _verdict_parts(report: Json) -> Iterator[str]:
    yield _size(report)
    decided = report["decided_by"]
    if report["margin"] is not None:
        bound = number(report["options"]["margin"])
        yield f"margin {number(report['margin'])} (at most {bound})"
    elif report["options"].get("val_func"):
        yield f"judged by {report['options']['val_func']}"
    if decided["note"]:
        yield decided["note"]
    if report["verdict"] == "fail" and decided["sample"] is not None:
        yield f"worst in sample {decided['sample']}"


def _is_unknown(report: Json) -> bool:
    """Whether the search stopped when it knew no plan but to keep everything."""
    stopped = (report.get("search") or {}).get("stopped")
    return bool(stopped) and len(report["fp32_nodes"]) >= report["model"]["candidates"]


def _size(report: Json) -> str:
    kept = report["fp32_nodes"]
    if not report["model"]["candidates"]:
        return "no op that could run in low precision"
    if not kept:
        return "all candidate ops in low precision"
    if _is_unknown(report):
        return "all ops in fp32: the search stopped before it knew a smaller plan"
    return ops_in_fp32(len(kept))


def _network(console: Console, report: Json) -> None:
    """The three comparisons, the worst sample of each."""
    table = _table("output", "compared", "result", "margin", "elements out", "cosine", "sample")
    names = list(report["model_outputs"][0]) if report["model_outputs"] else []
    for name in names:
        for pair in ("fp16_golden", "fp32_golden", "fp16_fp32"):
            rows = [
                (sample[name][pair], number_of)
                for sample, number_of in zip(
                    report["model_outputs"], report["samples"], strict=True
                )
            ]
            worst, sample = max(rows, key=lambda row: _badness(row[0]))
            table.add_row(
                Text(printable(name)),
                pair.replace("_", " vs "),
                _result(worst["result"]),
                margin_of(worst),
                count(worst["exceed_tol_count"], worst["element_count"]),
                similarity(worst["cos_sim_value"]),
                str(sample),
            )
    console.print()
    console.print(f"whole network, worst of {len(report['samples'])} samples", style="bold")
    console.print(table)


def _badness(comparison: Json) -> float:
    margin = comparison["margin"]
    return float("inf") if margin is None else float(margin)


def _kept(console: Console, report: Json, *, verbose: bool) -> None:
    ops = report["fp32_ops"]
    shown = ops if verbose else sorted(ops, key=_effect)[:_ROWS]
    table = _table("id", "type", "name", "why it stays in fp32")
    for op in shown:
        table.add_row(
            str(op["id"]),
            Text(printable(op["type"])),
            Text(printable(op["name"] or op["path"])),
            _told(op, verbose=verbose),
        )
    console.print()
    title = "ops in fp32" if len(shown) == len(ops) else f"ops in fp32, {len(shown)} of {len(ops)}"
    console.print(title, style="bold")
    console.print(table)


def _repairs(console: Console, report: Json) -> None:
    lines = repair_lines(report)
    if lines:
        console.print()
        console.print("cheaper than fp32, judged like the answer", style="bold")
        for line in lines:
            console.print(Text(printable(line)))


def _effect(op: Json) -> tuple[float, int]:
    """Orders ops by what their absence does to the outputs, the worst first."""
    witness = op.get("witness")
    margin = witness["margin"] if witness is not None else 0.0
    return (-(float("inf") if margin is None else margin), op["id"])


def _told(op: Json, *, verbose: bool) -> Text:
    """The cause and what proves that the op is needed; with ``-v`` the cause in full."""
    cause = op.get("cause")
    if cause is None:
        return Text(printable(("overflows; " if op.get("overflows") else "") + why(op)))
    words = f"{cause_name(cause['cause'])}: {cause['text']}" if verbose else None
    return Text(printable(f"{words or cause_name(cause['cause'])}; {why(op)}"))


def why(op: Json) -> str:
    """What shows that a kept op is needed."""
    witness = op.get("witness")
    if op["asked"]:
        return "asked for"
    if witness is None and op["saves"]:
        return "in fp32 it costs less than the casts around it"
    if witness is None:
        return "the search ended before it was examined"
    margin = number(witness["margin"], witness["note"] or "the rule says no")
    sample = "the data set" if witness["sample"] is None else f"sample {witness['sample']}"
    return f"without it {sample} fails: {margin}"


def _pareto(console: Console, report: Json, *, verbose: bool) -> None:
    """Margin against size and cost; where there are many plans, those next to the answer."""
    points, base = report["pareto"], report["cost"]["base"]
    first, last = 0, len(points)
    if not verbose and last > _ROWS:
        near = min(range(last), key=lambda i: abs(points[i]["size"] - len(report["fp32_nodes"])))
        first = max(0, min(near - _ROWS // 2, last - _ROWS))
        last = first + _ROWS
    table = _table("ops in fp32", "cost", "margin", "result", "")
    for point in points[first:last]:
        result = _result("pass" if point["passed"] else "fail")
        margin = number(point["margin"], "-" if point["passed"] else "not finite")
        answer = "the answer" if point["ops"] == report["fp32_nodes"] else ""
        table.add_row(str(point["size"]), change(point["cost"], base), margin, result, answer)
    console.print()
    title = f"margin against size and cost, {last - first} of {len(points)} plans"
    search = report["search"]
    stopped = search["pareto_stopped"]
    # An engine that is proposed to builds each plan of the curve, whatever its bound of builds.
    what = f"builds on {report['engine']['name']}" if search["proposal"] else "evaluations"
    console.print(
        printable(f"{title}, {search['pareto_evaluations']} more {what}")
        + (f" ({stopped})" if stopped else ""),
        style="bold",
    )
    console.print(table)


def _ops(console: Console, report: Json, *, verbose: bool) -> None:
    """One row per op over all samples: overflow and NaN first, then the worst."""
    rows = sorted(_op_rows(report), key=lambda row: row["order"])
    marked = [row for row in rows if row["marks"]]
    shown = rows if verbose else marked[:_ROWS]
    table = _table("id", "type", "name", "what", *_headings(report))
    for row in shown:
        cells = (Text(printable(str(c))) for c in (row["id"], row["type"], row["name"]))
        table.add_row(*cells, Text(", ".join(row["marks"]), style="red"), *row["figures"])
    console.print()
    if marked or verbose:
        title = f"ops that overflow, hold NaN or fail: {len(marked)}, {len(shown)} shown"
        console.print(title, style="bold")
        console.print(table)
    else:
        console.print(f"under this plan none of {len(rows)} ops overflows, holds NaN or fails")


def _headings(report: Json) -> list[str]:
    calc = report["options"]["mode"] == "CALC"
    return ["clip fp16", "ge fp16", "ge fp32"] if calc else ["out", "cosine", "norm rel"]


def _op_rows(report: Json) -> list[Json]:
    merged: dict[int, list[Json]] = {}
    for sample in report["op_statistic"]:
        for op in sample.values():
            merged.setdefault(op["id"], []).append(op)
    rows = [_calc_row, _raw_row][report["options"]["mode"] == "RAW"]
    return [rows(samples) for samples in merged.values()]


def _calc_row(samples: list[Json]) -> Json:
    outputs = [o for op in samples for o in op["outputs"]]
    clip = _most(outputs, "fp16_clip_ratio")
    read = max((op.get("fp16_input_clip_ratio") or 0.0 for op in samples), default=0.0)
    nan = any(o.get("fp16_check_nan") for o in outputs)
    marks = ["overflow"] * (clip > 0) + [f"overflow on read ({share(read)})"] * (read > 0)
    marks += ["NaN"] * nan
    figures = [share(clip), share(_most(outputs, "fp16_ge_ratio"))]
    figures.append(share(_most(outputs, "fp32_ge_ratio")))
    return _row(samples[0], marks, figures, order=(-nan, -max(clip, read)))


def _raw_row(samples: list[Json]) -> Json:
    outputs = [o for op in samples for o in op["outputs"]]
    failed = any(o.get("numpy_allclose") == "fail" for o in outputs)
    nan = any(o.get("fp16_nan_count") for o in outputs)
    inf = any(o.get("fp16_inf_count") for o in outputs)
    marks = ["NaN"] * nan + ["infinite"] * inf + ["fail"] * failed
    out = sum(o["exceed_tol_count"] for o in outputs)
    cosines = [o["cos_sim_value"] for o in outputs if o["cos_sim_value"] is not None]
    norms = [o["norm_rel"] for o in outputs if o["norm_rel"] is not None]
    furthest = max(norms, key=lambda n: abs(n - 1), default=None)
    elements = sum(o["fp16_element_count"] for o in outputs)
    figures = [count(out, elements), similarity(min(cosines, default=None)), number(furthest)]
    worst = out / elements if elements else 0.0
    return _row(samples[0], marks, figures, order=(-nan, -inf, -worst))


def _row(op: Json, marks: list[str], figures: list[str], order: tuple[float, ...]) -> Json:
    return {
        "id": op["id"],
        "type": op["type"],
        "name": op["name"] or op["path"],
        "marks": marks,
        "figures": figures,
        "order": (*order, op["id"]),
    }


def _most(outputs: list[Json], key: str) -> float:
    return max((o.get(key) or 0.0 for o in outputs), default=0.0)


def _closing(console: Console, report: Json) -> None:
    console.print()
    search = report.get("search")
    if search is not None:
        console.print(Text(printable(_search_line(report))))
        if search["proposal"] is not None:
            console.print(Text(printable(_proposal_line(report))))
        console.print(Text(_cost_line(report["cost"])))
        if search["holdout"] is not None:
            console.print(Text(_holdout_line(search["holdout"])))
    for note in report["notes"]:
        console.print(Text(f"note: {printable(note)}"))
    for role, path in report["output_files"].items():
        console.print(Text(f"{role}: {printable(path)}"), soft_wrap=True)
    if report["next_command"]:
        console.print()
        console.print(f"next, {report['next_reason']}:", style="bold")
        console.print(Text(f"  {printable(report['next_command'])}"), soft_wrap=True)


def _search_line(report: Json) -> str:
    search = report["search"]
    proof = "1-minimal: each op was shown to be needed" if search["one_minimal"] else "not minimal"
    if search["one_minimal"] and not report["fp32_nodes"]:
        proof = "no op is needed in fp32"
    stopped = f" ({search['stopped']})" if search["stopped"] else ""
    if not search["confirmed"] and not search["stopped"]:
        stopped = "; NOT confirmed by a second execution: the answer sits on the edge"
    before = search["before"]
    margin = number(before["margin"], before["note"] or ("yes" if before["passed"] else "no"))
    return (
        f"search: all ops low: {margin}, {evaluations(search)}, "
        f"{search['seconds']:.1f} s, {proof}{stopped}"
    )


def evaluations(search: Json) -> str:
    """How many plans were judged."""
    return f"{search['evaluations']} evaluation{'' if search['evaluations'] == 1 else 's'}"


def _proposal_line(report: Json) -> str:
    """Who proposed, how many builds the verification took, and of whom minimality is said."""
    proposal, name = report["search"]["proposal"], report["engine"]["name"]
    proposer = proposal["proposer"]["name"]
    builds = proposal["builds"]
    line = (
        f"proposed by {proposer} ({proposal['evaluations']} evaluations), verified on {name}: "
        f"{builds} build{'' if builds == 1 else 's'} besides all low and all fp32"
    )
    for answer in (r for r in proposal["rounds"] if r["ops"] == report["fp32_nodes"]):
        real, emulated = (number(answer[k], "not finite") for k in ("margin", "emulated_margin"))
        line += f"; margin {real} there, {emulated} emulated"
    if not report["search"]["one_minimal"] and proposal["minimal"]:
        line += f"; minimal on {proposer}, not shown on {name}"
    return line


def _cost_line(cost: Json) -> str:
    how = "measured" if cost["measured"] else "estimated"
    answer, most = (change(cost[key], cost["base"]) for key in ("answer", "all_fp32"))
    line = f"cost: {answer} over all ops low, where all ops in fp32 are {most} ({how})"
    dearer = cost["answer"] > cost["all_fp32"]
    return f"{line}; --objective cost looks for a cheaper plan" if dearer else line


def _holdout_line(holdout: Json) -> str:
    result = "pass" if holdout["passed"] else f"fail in sample {holdout['sample']}"
    return f"samples held out of the search: {result}, margin {number(holdout['margin'])}"


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in headings:
        right = heading not in ("type", "name", "what", "output", "compared", "result")
        right &= not heading.startswith("why")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    return table


def _result(result: str) -> Text:
    return Text(result, style="green" if result == "pass" else "red")
