"""Small models with samples, and the real command line run on them.

Every report that a run writes is read as strict JSON and checked against the shipped schema, so
each test that runs anything is a test of the schema too.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx

from topsideas.cli import main
from topsideas.report.schema import report_schema

PLATE_READER = Path(__file__).parents[2] / "examples" / "plate_reader"

SQUARES = """(float[N,4] x) => (float[N,4] y) <float c = {300}> {
    [scale] a = Mul(x, c)
    [square] s = Mul(a, a)
    [root] r = Sqrt(s)
    [unscale] y = Div(r, c)
}"""
"""300·x is squared, which overflows fp16, and read by the root: ops 1 and 2 must stay fp32."""

SQUARES_ANSWER = [1, 2]

GENTLE = """(float[N,4] x) => (float[N,4] y) <float c = {3}> {
    [triple] a = Mul(x, c)
    [clip] y = Relu(a)
}"""
"""Passes in fp16 as it is."""

CANCELLING = """(float[N,4] x) => (float[N,4] y) <float c = {100000}> {
    [blow] a = Mul(x, c)
    [ratio] y = Div(a, a)
}"""
"""x·c overflows fp16: saturated the ratio is still 1, infinite it is NaN."""

WEAR = """(float[N,4] x) => (float[N,4] y) <float c = {1.1}, float d = {0.9090909}> {
    [up0] a = Mul(x, c)
    [down0] b = Mul(a, d)
    [up1] e = Mul(b, c)
    [down1] f = Mul(e, d)
    [up2] g = Mul(f, c)
    [down2] y = Mul(g, d)
}"""
"""Each op rounds a little; how many must stay fp32 depends on the tolerance."""

BODIES = """(float[4] x, bool flag, float[3,4] rows)
    => (float[4] y, float[4] z, float[4] last, float[3,4] seen) <float c = {300}> {
    [choice] y = If (flag) <
        then_branch = yes () => (float[4] a) {
            [big] p = Mul(x, c)
            [inner_square] b = Mul(p, p)
            [inner_root] q = Sqrt(b)
            [small] a = Div(q, c)
        },
        else_branch = no () => (float[4] a) { [negate] a = Neg(x) }
    >
    [count] n = Constant <value = int64 {3}> ()
    [go] t = Constant <value = bool {1}> ()
    [loop] z = Loop (n, t, x) <
        body = turn (int64 i, bool k, float[4] s) => (bool d, float[4] u) {
            [keep_going] d = Identity(k)
            [half] h = Constant <value = float {0.5}> ()
            [step] u = Mul(s, h)
        }
    >
    [scan] last, seen = Scan <num_scan_inputs = 1,
        body = row (float[4] s, float[4] r) => (float[4] u, float[4] v) {
            [add] u = Add(s, r)
            [copy] v = Identity(u)
        }
    > (x, rows)
}"""
"""An If, a Loop and a Scan; the square in the If overflows."""

KINDS = """(float[N,4] x) => (float[N,4] y, int64[N] best, bool[N,4] big) <float c = {0.5}> {
    [halve] y = Mul(x, c)
    [pick] best = ArgMax <axis = 1, keepdims = 0> (x)
    [above] big = Greater(x, c)
}"""
"""A float, an integer and a boolean output."""

BODIES_SAMPLE = {
    "x": np.linspace(0.5, 2, 4, dtype=np.float32),
    "flag": np.array(True),
    "rows": np.ones((3, 4), np.float32),
}

Arrays = Mapping[str, np.ndarray]


def parse(text: str, *, opset: int = 17, functions: str = "") -> onnx.ModelProto:
    """A model of the ONNX text format, without its header."""
    domains = f'"": {opset}, "com.microsoft": 1, "local": 1'
    return onnx.parser.parse_model(
        f"<ir_version: 10, opset_import: [{domains}]> main {text}\n{functions}"
    )


def rows(count: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    """An input ``x`` of [count, 4] from 0.5 to 2."""
    generator = np.random.default_rng(seed)
    return {"x": generator.uniform(0.5, 2, (count, 4)).astype(np.float32)}


@dataclass(frozen=True)
class Outcome:
    """What a run of the command left: exit code, both streams, and the report if one was asked."""

    code: int
    out: str
    err: str
    report: dict[str, Any] | None

    @property
    def found(self) -> dict[str, Any]:
        """The report, which must be there."""
        assert self.report is not None, self.err
        return self.report


class Bench:
    """A folder with a model, samples and room for a workspace and a report."""

    def __init__(self, folder: Path, model: str | onnx.ModelProto | bytes = SQUARES) -> None:
        self.folder = folder
        self.model = folder / "model.onnx"
        self.samples = folder / "samples"
        self.workspace = folder / "workspace"
        self.json = folder / "report.json"
        self.samples.mkdir(parents=True, exist_ok=True)
        proto = parse(model) if isinstance(model, str) else model
        content = proto if isinstance(proto, bytes) else proto.SerializeToString()
        self.model.write_bytes(content)

    def sample(self, number: int, inputs: Arrays, golden: Arrays | None = None) -> Path:
        """Write a sample; returns the path of its inputs."""
        path = self.samples / f"sample{number}_inputs.npz"
        np.savez(path, **inputs)
        if golden is not None:
            np.savez(self.samples / f"sample{number}_outputs.npz", **golden)
        return path

    def file(self, name: str, content: str | bytes) -> Path:
        """Write a file beside the model."""
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def words(self, *more: str | Path, target: str = "gcu") -> list[str]:
        """The command line after the program's name."""
        given = {"--input_onnx": self.model, "--sample_dir": self.samples}
        given |= {"--workspace": self.workspace, "--output_json": self.json}
        words = [str(word) for word in more]
        flags = [[flag, str(path)] for flag, path in given.items() if flag not in words]
        return [target, "mix_precision", *(word for pair in flags for word in pair), *words]

    def run(self, *more: str | Path, target: str = "gcu") -> Outcome:
        """Run the command in this process."""
        self.json.unlink(missing_ok=True)
        code, out, err = run_words(self.words(*more, target=target))
        return Outcome(code, out, err, read_report(self.json))

    def written(self) -> set[str]:
        """Every file and folder outside the workspace, by its path in the folder."""
        found = (p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*"))
        return {name for name in found if not name.startswith(self.workspace.name)}


def squares_bench(folder: Path, count: int = 2, model: str = SQUARES) -> Bench:
    """A bench with ``count`` samples whose golden outputs are right for ``SQUARES``."""
    bench = Bench(folder, model)
    for number in range(count):
        inputs = rows(seed=number)
        bench.sample(number, inputs, {"y": inputs["x"]})
    return bench


def plain_bench(folder: Path, model: str | onnx.ModelProto | bytes, *samples: Arrays) -> Bench:
    """A bench whose golden outputs the tool computes."""
    bench = Bench(folder, model)
    for number, inputs in enumerate(samples or (rows(),)):
        bench.sample(number, inputs)
    return bench


def run_words(words: Sequence[str]) -> tuple[int, str, str]:
    """Run ``topsideas`` with these words; returns exit code, standard output and error."""
    out, err, path = io.StringIO(), io.StringIO(), list(sys.path)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as stop:  # argparse leaves this way
            code = int(stop.code or 0)
    sys.path[:] = path
    return code, out.getvalue(), err.getvalue()


def read_report(path: Path) -> dict[str, Any] | None:
    """A report as strict JSON that fits the schema; None if there is none."""
    if not path.exists():
        return None
    report: dict[str, Any] = json.loads(path.read_text("utf-8"), parse_constant=_refuse)
    _validator().validate(report)
    return report


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


@cache
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(report_schema())


def ops(report: Mapping[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """For each op its statistics on each sample."""
    found: dict[int, list[dict[str, Any]]] = {}
    for sample in report["op_statistic"]:
        for key, op in sample.items():
            assert int(key) == op["id"]
            found.setdefault(op["id"], []).append(op)
    return found


def outputs_of(report: Mapping[str, Any], field: str) -> dict[int, list[Any]]:
    """For each op the values of one field over all samples and outputs."""
    return {
        op: [output.get(field) for sample in samples for output in sample["outputs"]]
        for op, samples in ops(report).items()
    }


def results(report: Mapping[str, Any], pair: str) -> list[str]:
    """Pass or fail of one comparison, over samples and outputs."""
    return [
        output[pair]["result"] for sample in report["model_outputs"] for output in sample.values()
    ]
