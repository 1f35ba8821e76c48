"""The page in a real browser: Chromium, headless, with no network."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from e2e_bench import run_words, squares_bench

from topsideas.report.html.page import page as rendered
from topsideas.report.text import printable

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt install chromium")

# What a name out of a model may hold.
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">\x1b[31m\u202e{{7*7}}&amp;牌照"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


class Shown:
    """A page that was opened, with all that the browser complained about."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        options = {"locale": "en-US", "viewport": {"width": 1280, "height": 900}} | options
        self.context = browser.new_context(offline=True, **options)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._ask)
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("#again")

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _ask(self, request: Any) -> None:
        if not request.url.startswith("file:"):
            self.complaints.append(f"asked for {request.url}")

    def column(self, section: str, number: int) -> list[str]:
        """The cells in sight of one column, from top to bottom."""
        rows = self.page.locator(f"#{section} .space .row")
        found = [
            (int(row.get_attribute("aria-rowindex")), row.locator("> *").nth(number).inner_text())
            for row in rows.all()
        ]
        return [text for _, text in sorted(found)]

    def close(self) -> None:
        self.context.close()
        assert self.complaints == []


@cache
def _report(folder: Path) -> dict[str, Any]:
    bench = squares_bench(folder)
    outcome = bench.run("--overflow", "inf", "--pareto", "--explain", "repairs", target="onnx")
    assert outcome.code == 0, outcome.err
    return outcome.found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of a model whose square overflows, with one op of a hostile name."""
    found = copy.deepcopy(_report(tmp_path_factory.mktemp("squares")))
    for op in (*found["evidence"]["ops"], *found["fp32_ops"]):
        if op["id"] == 1:
            op["name"] = HOSTILE
    return found


@pytest.fixture
def shown(browser: Any, report: dict[str, Any], tmp_path: Path) -> Iterator[Shown]:
    found = Shown(browser, _written(tmp_path, report))
    yield found
    found.close()


def _written(folder: Path, report: dict[str, Any]) -> Path:
    path = folder / "report.html"
    path.write_text(rendered(report), encoding="utf-8")
    return path


def test_the_verdict_and_every_section_are_there(shown: Shown) -> None:
    assert shown.page.locator(".badge").inner_text() == "PASS"
    assert "2 ops in fp32" in shown.page.locator("h1").inner_text()
    sections = [node.get_attribute("id") for node in shown.page.locator("section").all()]
    expected = ["verdict", "kept", "repairs", "depth", "ranges", "margins", "search", "ops"]
    assert sections == [*expected, "again"]
    assert [link.get_attribute("href") for link in shown.page.locator("nav a").all()] == [
        f"#{section}" for section in sections
    ]
    for section in ("depth", "ranges", "search"):
        canvas = shown.page.locator(f"#{section} canvas").first
        assert canvas.bounding_box()["width"] > 300
        assert _is_drawn(canvas), section


def _is_drawn(canvas: Any) -> bool:
    """Whether a canvas holds more than one colour."""
    colours: int = canvas.evaluate(
        """c => new Set(new Uint32Array(
            c.getContext("2d").getImageData(0, 0, c.width, c.height).data.buffer)).size"""
    )
    return colours > 5


def test_names_out_of_a_model_are_text(shown: Shown) -> None:
    assert shown.page.locator("#kept img, #ops img").count() == 0
    assert "owned" not in shown.page.title()
    assert any("</script><img" in name for name in shown.column("ops", 2))


def test_ops_are_sorted_and_filtered(shown: Shown) -> None:
    ids = shown.column("ops", 0)
    assert ids == ["0", "1", "2", "3"]
    head = shown.page.locator("#ops .head button")
    head.nth(4).click()
    largest = [float(text) for text in shown.column("ops", 4)]
    assert largest == sorted(largest, reverse=True)
    assert head.nth(4).get_attribute("aria-sort") == "descending"
    head.nth(4).click()
    assert [float(text) for text in shown.column("ops", 4)] == sorted(largest)
    head.nth(0).click()
    shown.page.get_by_label("fp32 only").check()
    assert sorted(shown.column("ops", 0)) == ["1", "2"]
    assert shown.page.locator(".filters output").inner_text() == "2 of 4"
    shown.page.get_by_label("overflow only").check()
    assert shown.column("ops", 0) == ["1"]
    shown.page.get_by_label("fp32 only").uncheck()
    shown.page.get_by_label("overflow only").uncheck()
    shown.page.locator("#ops select").select_option(label="Div")
    assert shown.column("ops", 1) == ["Div"]
    shown.page.locator("#ops select").select_option("")
    shown.page.locator("#ops input[type=search]").fill("root")
    assert shown.column("ops", 2) == ["root"]


def test_an_op_that_is_chosen_is_explained_with_its_neighbours(shown: Shown) -> None:
    detail = shown.page.locator(".detail")
    assert "writes up to" in detail.locator(".why").inner_text()
    assert detail.locator(".node").count() == 4
    assert detail.locator(".node.kept").count() == 2
    assert detail.locator(".edge.island").count() == 1
    assert detail.locator(".edge.cast").count() == 2
    detail.locator(".node").nth(2).press("Enter")
    assert detail.locator("h3").inner_text().startswith("2 Sqrt")
    assert "it reads up to" in detail.locator(".why").inner_text()
    shown.page.locator("#kept .chip").nth(1).click()
    assert len(shown.column("kept", 0)) == 1


def test_the_keyboard_moves_through_tables_and_charts(shown: Shown) -> None:
    grid = shown.page.locator("#ops .view")
    grid.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown"):
        shown.page.keyboard.press(key)
    assert shown.page.locator(".detail h3").inner_text().startswith("3 Div")
    shown.page.keyboard.press("Home")
    assert shown.page.locator(".detail h3").inner_text().startswith("0 Mul")
    chart = shown.page.locator("#depth .plot")
    chart.focus()
    shown.page.keyboard.press("ArrowRight")
    shown.page.keyboard.press("ArrowRight")
    assert "with the plan" in shown.page.locator("#depth .readout").inner_text()
    shown.page.keyboard.press("Enter")
    assert shown.page.locator(".detail h3").inner_text().startswith("1 Mul")
    for key in ("End", "+", "+", "Home", "-", "Enter"):
        shown.page.keyboard.press(key)
    assert shown.page.locator(".detail h3").inner_text().startswith("0 Mul")


def test_languages_and_colours_are_switched(shown: Shown) -> None:
    page = shown.page
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.locator("#theme").click()
    assert page.evaluate(ground) != light
    page.locator("#language").click()
    assert page.locator(".badge").inner_text() == "通过"
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert "超过 fp16 的最大值" in page.locator(".why").inner_text()
    page.locator("#language").click()
    assert page.locator(".badge").inner_text() == "PASS"


@pytest.mark.parametrize(
    "options",
    [
        {"color_scheme": "dark"},
        {"locale": "zh-CN"},
        {"viewport": {"width": 360, "height": 740}},
    ],
    ids=["dark", "chinese", "narrow"],
)
def test_it_fits_where_it_is_opened(
    browser: Any, report: dict[str, Any], tmp_path: Path, options: dict[str, Any]
) -> None:
    found = Shown(browser, _written(tmp_path, report), **options)
    width = found.page.evaluate("document.documentElement.scrollWidth")
    assert width <= found.page.viewport_size["width"]
    if "locale" in options:
        assert found.page.locator(".badge").inner_text() == "通过"
    if "color_scheme" in options:
        channels = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(int(c) for c in channels.strip("rgb()").split(",")) < 60
    found.close()


def test_ten_thousand_ops_are_usable(browser: Any, report: dict[str, Any], tmp_path: Path) -> None:
    path = _written(tmp_path, _large(report, 10_000))
    assert path.stat().st_size < 4e6
    found = Shown(browser, path)
    assert found.page.locator(".row").count() < 200
    found.page.locator("#ops .head button").nth(4).click()
    first = float(found.column("ops", 4)[0])
    assert first == 9999
    grid = found.page.locator("#ops .view")
    grid.focus()
    found.page.keyboard.press("End")
    assert found.page.locator("#ops .row[aria-selected=true]").count() == 1
    seconds = found.page.evaluate(
        """() => { const start = performance.now();
            document.querySelectorAll("#ops .head button")[2].click();
            document.body.offsetHeight; return (performance.now() - start) / 1000; }"""
    )
    assert seconds < 2
    found.close()


def test_a_thousand_ops_take_less_than_six_megabytes(report: dict[str, Any]) -> None:
    assert len(rendered(_large(report, 1000)).encode()) < 1e6


def _large(report: dict[str, Any], count: int) -> dict[str, Any]:
    """The report with so many ops, each the reader of the one before."""
    found = copy.deepcopy(report)
    row = found["evidence"]["ops"][0]
    found["evidence"]["ops"] = [
        row
        | {"id": i, "name": f"/encoder/layer.{i}/attention/op", "reads": [i - 1] if i else []}
        | {"range": row["range"] | {"most": float(i)}}
        for i in range(count)
    ]
    found["op_statistic"] = []
    return found


def test_a_report_without_evidence_still_makes_a_page(
    browser: Any, report: dict[str, Any], tmp_path: Path
) -> None:
    """As manual mode writes it, or a search that was stopped."""
    bare = {k: v for k, v in report.items() if k not in ("evidence", "repairs")}
    manual = {k: v for k, v in bare.items() if k not in ("search", "cost", "pareto")}
    manual |= {"mode": "manual", "fp32_ops": [], "fp32_nodes": [], "verdict": "fail"}
    for part in (bare, manual, manual | {"op_statistic": []}):
        found = Shown(browser, _written(tmp_path, part))
        assert "--explain causes" in found.page.locator("#depth").inner_text()
        found.close()


def test_a_failure_is_not_told_as_a_success(
    browser: Any, report: dict[str, Any], tmp_path: Path
) -> None:
    fail = report | {"verdict": "fail", "fp32_ops": [], "fp32_nodes": [], "next_command": ""}
    manual = {k: v for k, v in fail.items() if k not in ("search", "cost", "pareto")}
    refused = manual | {"decided_by": {"sample": None, "output": None, "note": "golden is off"}}
    for part, headline in (
        (manual | {"mode": "manual"}, "not reached with every candidate op in fp16"),
        (refused | {"margin": None}, "Even with every op in fp32 the golden outputs are missed"),
    ):
        found = Shown(browser, _written(tmp_path, part))
        assert headline in found.page.locator("h1").inner_text()
        verdict, kept = (
            found.page.locator(f"#{part}").inner_text() for part in ("verdict", "kept")
        )
        assert "Nothing is left to do" not in verdict
        assert "No command follows from this run" in verdict
        assert "No op was kept in fp32" in kept
        found.close()


def test_a_search_that_was_stopped_asks_for_no_other_flag(
    browser: Any, report: dict[str, Any], tmp_path: Path
) -> None:
    bare = {k: v for k, v in report.items() if k not in ("evidence", "repairs")}
    kept = [op | {"witness": None, "saves": True, "cause": None} for op in report["fp32_ops"]]
    bare |= {"search": report["search"] | {"stopped": "interrupted"}, "fp32_ops": kept}
    found = Shown(browser, _written(tmp_path, bare), locale="zh-CN")
    assert "搜索提前停止" in found.page.locator("#depth").inner_text()
    assert "在检查它之前结束" in found.page.locator("#kept").inner_text()
    assert "被中断" in found.page.locator("#verdict").inner_text()
    found.close()


@pytest.mark.parametrize("key", ["reads", "name", "margins", "trace", "kept"])
def test_a_part_that_was_changed_by_hand_hides_no_other(
    browser: Any, report: dict[str, Any], tmp_path: Path, key: str
) -> None:
    text = rendered(report)
    data = text.split('id="data">')[1].split("</script>")[0]
    shown = json.loads(data)
    for place in (shown, shown["ops"], shown["search"]):
        if key in place:
            place[key] = [7, "x"]
    (tmp_path / "report.html").write_text(
        text.replace(data, json.dumps(shown).replace("<", "\\u003c"))
    )
    found = Shown(browser, tmp_path / "report.html")
    assert found.page.locator("section").count() == 9
    assert found.page.locator(".badge").inner_text() == "PASS"
    found.close()


def test_the_page_allows_nothing_from_outside(report: dict[str, Any]) -> None:
    text = rendered(report)
    policy = text.split('Content-Security-Policy" content="')[1].split('">')[0]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    data = text.split('id="data">')[1].split("</script>")[0]
    assert "<" not in data
    assert json.loads(data)["ops"]["name"][1] == printable(HOSTILE)


def test_the_command_writes_the_page_beside_the_answer(tmp_path: Path) -> None:
    bench = squares_bench(tmp_path)
    target = tmp_path / "report.html"
    outcome = bench.run("--output_html", target, target="onnx")
    assert outcome.code == 0
    assert "repairs" in outcome.found
    assert target.read_bytes().startswith(b"<!doctype html>")
    again, out, _ = run_words(["onnx", "report", str(bench.json), "--format", "html"])
    assert again == 0
    assert "report.html: written" in out
    mine = tmp_path / "mine.html"
    mine.write_text("<p>mine</p>")
    outcome = bench.run("--output_html", mine)
    assert outcome.code == 2
    assert "exists and is no report" in outcome.err
    assert mine.read_text() == "<p>mine</p>"
