"""What an answer costs, the cheapest answer, and the curve around it: through the command line."""

from __future__ import annotations

from pathlib import Path

from e2e_bench import Bench, squares_bench


def _found(bench: Bench, *flags: str) -> tuple[dict, str]:
    outcome = bench.run(*flags)
    assert outcome.code == 0
    return outcome.found, outcome.out


def test_every_answer_has_a_cost_and_shares_that_add_up(tmp_path: Path) -> None:
    found, shown = _found(squares_bench(tmp_path))
    cost = found["cost"]
    assert cost["answer"] > 0
    assert (cost["all_low"], cost["unit"], cost["measured"]) == (0, "bytes", False)
    assert sum(op["cost"] for op in found["fp32_ops"]) == cost["answer"]
    assert "cost: +" in shown
    assert "pareto" not in found


def test_the_cheapest_answer_costs_no_more(tmp_path: Path) -> None:
    few, _ = _found(squares_bench(tmp_path / "few"))
    cheap, _ = _found(squares_bench(tmp_path / "cheap"), "--objective", "cost")
    assert cheap["verdict"] == "pass"
    assert cheap["cost"]["answer"] <= few["cost"]["answer"]
    assert len(cheap["fp32_nodes"]) >= len(few["fp32_nodes"])
    assert cheap["search"]["one_minimal"]


def test_the_curve_goes_from_nothing_to_everything_and_holds_the_answer(tmp_path: Path) -> None:
    found, shown = _found(squares_bench(tmp_path), "--pareto")
    curve = found["pareto"]
    assert [p["size"] for p in curve] == sorted(p["size"] for p in curve)
    assert (curve[0]["size"], curve[0]["passed"], curve[0]["cost"]) == (0, False, 0)
    answer = next(p for p in curve if p["ops"] == found["fp32_nodes"])
    assert (answer["passed"], answer["cost"]) == (True, found["cost"]["answer"])
    assert "the answer" in shown
    assert found["search"]["pareto_stopped"] == ""


def test_search_flags_are_not_carried_into_the_next_command(tmp_path: Path) -> None:
    found, _ = _found(squares_bench(tmp_path), "--pareto", "--objective", "cost")
    assert "--pareto" not in found["next_command"]
    assert "--objective" not in found["next_command"]


def test_flags_of_a_search_are_noted_in_manual_mode(tmp_path: Path) -> None:
    outcome = squares_bench(tmp_path).run("--manual", "--pareto")
    assert any("auto mode only" in note for note in outcome.found["notes"])
