"""Mistaken and hostile flags: exit code, message, nothing written, workspace still good."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e_bench import GENTLE, Bench, plain_bench, rows, run_words

FILES: dict[str, str | bytes] = {
    "ids.bin": b"\x00\xff\xfe",
    "dashes": "--5\n",
    "unreport.json": '{"verdict": "pass"}',
    "floats.json": '{"fp32_nodes": [1, 2.5]}',
    "booleans.json": "[true]",
    "broken.json": "[1, 2",
    "deep.json": "[" * 100_000,
    "options.json": '{"subnormals": "sometimes"}',
    "rule.txt": "def check(r, o): return True",
    "rule.py": "import sys\nlimit = 3\n"
    "def nothing(r, o): return None\n"
    "def number(r, o): return 0.5\n"
    "def boom(r, o): raise KeyError('plate')\n"
    "def leave(r, o): sys.exit('bye')\n"
    "def one(r): return True\n"
    "def refuse(r, o): return False\n",
    "broken.py": "def check(:\n",
    "raises.py": "raise RuntimeError('no licence')\n",
    "leaves.py": "import sys\nsys.exit('bye')\n",
    "binary.py": b"\x00\xff",
}

MISTAKES: list[tuple[str, list[str], str]] = [
    ("unknown flag", ["--fast"], "unrecognized arguments: --fast"),
    ("abbreviated flag", ["--finaliz"], "unrecognized arguments: --finaliz"),
    ("mode", ["--mode", "calc"], "argument --mode: invalid choice: 'calc' (choose from"),
    ("engine", ["--engine", "abacus"], "argument --engine: invalid choice: 'abacus' (choose from"),
    ("precision", ["--precision", "fp8"], "--precision: invalid choice: 'fp8' (choose from"),
    ("overflow", ["--overflow", "wrap"], "--overflow: invalid choice: 'wrap' (choose from"),
    ("scope", ["--val_scope", "all"], "--val_scope: invalid choice: 'all' (choose from"),
    ("flag without value", ["--rtol"], "argument --rtol: expected one argument"),
    ("rtol word", ["--rtol", "small"], "argument --rtol: invalid float value: 'small'"),
    ("rtol nan", ["--rtol", "nan"], "rtol=nan: expected a finite number that is not negative"),
    ("rtol inf", ["--rtol", "inf"], "rtol=inf: expected a finite number that is not negative"),
    ("rtol negative", ["--rtol=-1e-3"], "rtol=-0.001: expected a finite number that is not"),
    ("atol nan", ["--atol", "nan"], "atol=nan: expected a finite number that is not negative"),
    ("atol negative", ["--atol", "-1"], "atol=-1.0: expected a finite number that is not"),
    ("ntol", ["--ntol", "1.5"], "ntol=1.5: expected a share from 0 to below 1 (0.01 is 1 %)"),
    ("ntol nan", ["--ntol", "nan"], "ntol=nan: expected a share from 0 to below 1"),
    ("cosine", ["--cos_sim", "2"], "cos_sim=2.0: expected a number above 0 and up to 1"),
    ("cosine nan", ["--cos_sim", "nan"], "cos_sim=nan: expected a number above 0 and up to 1"),
    ("cosine zero", ["--cos_sim", "0"], "cos_sim=0.0: expected a number above 0 and up to 1"),
    ("margin zero", ["--margin", "0"], "margin=0.0: expected a number above 0 and up to 1"),
    ("margin large", ["--margin", "1.5"], "margin=1.5: expected a number above 0 and up to 1"),
    ("margin inf", ["--margin", "inf"], "margin=inf: expected a number above 0 and up to 1"),
    ("le nan", ["--le_value_thres", "nan"], "le_value_thres=nan: expected a finite number"),
    ("ge negative", ["--ge_value_thres", "-1"], "ge_value_thres=-1.0: expected a finite number"),
    ("ge inf", ["--manual", "--ge_value_thres", "inf"], "ge_value_thres=inf: expected a finite"),
    ("threads", ["--threads", "0"], "--threads: '0': expected a whole number of at least 1"),
    ("workers", ["--workers", "0"], "--workers: '0': expected a whole number of at least 1"),
    ("ray", ["--ray_address", "head"], "ray_address 'head': expected local, auto or ray://"),
    ("device", ["--device", "0,0"], "--device: '0,0': expected a whole number of at least 0, or"),
    ("device word", ["--device", "-1"], "--device: '-1': expected a whole number of at least 0"),
    ("devices", ["--device", "0,1"], "--device 0,1 is for several workers; expected --ray_ad"),
    (
        "resources",
        ["--workers", "2", "--worker_resources", '{"GPU": "1"}'],
        'expected a JSON object of numbers, like {"GPU": 1}',
    ),
    (
        "resources alone",
        ["--worker_resources", '{"GPU": 1}'],
        "--worker_resources is for several workers; expected --ray_address too",
    ),
    ("threads word", ["--threads", "all"], "--threads: 'all': expected a whole number of at"),
    ("evaluations", ["--max_evaluations", "0"], "--max_evaluations: '0': expected a whole number"),
    ("evaluations float", ["--max_evaluations", "1e3"], "--max_evaluations: '1e3': expected a"),
    ("time", ["--time_limit", "0"], "--time_limit: '0': expected a number of seconds above 0"),
    ("time nan", ["--time_limit", "nan"], "--time_limit: 'nan': expected a number of seconds"),
    ("time word", ["--time_limit", "1h"], "--time_limit: '1h': expected a number of seconds"),
    ("holdout", ["--holdout", "-1"], "--holdout: '-1': expected a whole number of at least 0"),
    ("holdout all", ["--holdout", "2"], "cannot hold out 2 of 2 samples: expected 0 or more, and"),
    ("device", ["--device", "-1"], "--device: '-1': expected a whole number of at least 0"),
    ("cluster", ["--cluster", "0", "x"], "argument --cluster: invalid int value: 'x'"),
    (
        "op id",
        ["--fp32_nodes", "2"],
        "op id 2 is not in the model; expected 0 to 1, see mix_precision --list_ops",
    ),
    ("negative id", ["--fp32_nodes", "-1"], "op id -1 is not in the model; expected 0 to 1"),
    ("huge id", ["--fp32_nodes", "9" * 5000], "no op has the id or name '9999"),
    (
        "op name",
        ["--fp32_nodes", "tripel"],
        "name 'tripel'; did you mean 'triple'?; see mix_precision --list_ops",
    ),
    (
        "empty name",
        ["--fp32_nodes", ""],
        "no op has the id or name ''; see mix_precision --list_ops",
    ),
    ("no such file of ids", ["--fp32_nodes", "@nope"], "cannot read op ids from nope: No such"),
    ("folder of ids", ["--fp32_nodes", "@samples"], "cannot read op ids from samples: Is a dir"),
    ("binary ids", ["--fp32_nodes", "@ids.bin"], "cannot read op ids from ids.bin: 'utf-8' codec"),
    (
        "dashes as ids",
        ["--fp32_nodes", "@dashes"],
        "no op has the id or name '--5'; see mix_precision --list_ops",
    ),
    ("no report", ["--fp32_nodes", "@unreport.json"], "or a report with 'fp32_nodes'"),
    ("floats as ids", ["--fp32_nodes", "@floats.json"], "floats.json: expected a list of ids or"),
    (
        "booleans as ids",
        ["--fp32_nodes", "@booleans.json"],
        "booleans.json: expected a list of ids",
    ),
    ("broken ids", ["--fp32_nodes", "@broken.json"], "broken.json: not valid JSON: Expecting"),
    ("deep ids", ["--fp32_nodes", "@deep.json"], "deep.json: not valid JSON: maximum recursion"),
    ("filter id", ["--op_id_filter", "7"], "op id 7 is not in the model; expected 0 to 1"),
    ("filter word", ["--op_id_bypass", "x"], "argument --op_id_bypass: invalid int value: 'x'"),
    ("filter type", ["--op_type_filter", "Rely"], "no op of type 'Rely'; did you mean 'Relu'?"),
    ("bypass type", ["--op_type_bypass", "Conv"], "the model has no op of type 'Conv'"),
    (
        "options text",
        ["--compile_options", "fast"],
        "--compile_options: not valid JSON (Expecting",
    ),
    ("options list", ["--compile_options", "[1]"], "expected a JSON object, found list"),
    ("options nan", ["--compile_options", '{"subnormals": NaN}'], "Out of range float values are"),
    ("options inf", ["--compile_options", '{"a": 1e999}'], "--compile_options: not valid JSON"),
    ("options deep", ["--compile_options", "[" * 100_000], "not valid JSON (maximum recursion"),
    (
        "options file",
        ["--compile_options", "@no.json"],
        "--compile_options: cannot read no.json: ",
    ),
    (
        "options binary",
        ["--compile_options", "@ids.bin"],
        "--compile_options: cannot read ids.bin",
    ),
    ("options broken", ["--compile_options", "@broken.json"], "broken.json: not valid JSON ("),
    ("shape", ["--min_shapes", "x:2,4"], "'x:2,4' is not a shape; expected NAME:[1,3,224,224]"),
    (
        "shape word",
        ["--min_shapes", "x:[a,4]"],
        "'a' in 'x:[a,4]' is not a size, expected a whole",
    ),
    ("shape negative", ["--max_shapes", "x:[-1,4]"], "'-1' in 'x:[-1,4]' is not a size"),
    ("shape twice", ["--min_shapes", "x:[1,4]", "x:[2,4]"], "'x' is given twice, expected once"),
    (
        "shape of nothing",
        ["--min_shapes", "z:[1]", "--max_shapes", "z:[1]"],
        "the model has no input 'z'; expected one of ['x']",
    ),
    ("shape at one end", ["--min_shapes", "x:[1,4]"], "but no --max_shapes; expected both or"),
    (
        "shape of other rank",
        ["--min_shapes", "x:[1]", "--max_shapes", "x:[1]"],
        "'x' is [N,4] in the model, found [1]; expected the same rank and the same fixed sizes",
    ),
    (
        "shapes in the wrong order",
        ["--min_shapes", "x:[3,4]", "--max_shapes", "x:[1,4]"],
        "--min_shapes [3,4] exceeds --max_shapes [1,4]; expected the same rank, and min <= max",
    ),
    (
        "samples outside the shapes",
        ["--min_shapes", "x:[5,4]", "--max_shapes", "x:[9,4]", "--clean"],
        "sample 0: 'x' has shape [2,4], expected 5 to 9 at axis 0, found 2; widen --min_shapes",
    ),
    ("validator form", ["--val_func", "rule.py"], "--val_func 'rule.py': expected FILE.py:NAME"),
    ("validator file", ["--val_func", "no.py:f"], "--val_func: no such file no.py; expected FILE"),
    (
        "validator folder",
        ["--val_func", "samples:f"],
        "--val_func: no such file samples; expected",
    ),
    (
        "validator text",
        ["--val_func", "rule.txt:check"],
        "rule.txt is not a Python file; expected",
    ),
    (
        "validator syntax",
        ["--val_func", "broken.py:check"],
        "broken.py fails to load: SyntaxError",
    ),
    ("validator raises", ["--val_func", "raises.py:f"], "fails to load: RuntimeError: no licence"),
    (
        "validator leaves",
        ["--val_func", "leaves.py:f"],
        "leaves.py fails to load: SystemExit: bye",
    ),
    ("validator binary", ["--val_func", "binary.py:f"], "binary.py fails to load: SyntaxError"),
    ("no validator", ["--val_func", "rule.py:check"], "rule.py defines no function 'check'"),
    ("no function", ["--val_func", "rule.py:limit"], "rule.py defines no function 'limit'"),
    (
        "validator None",
        ["--val_func", "rule.py:nothing"],
        "nothing returned None on sample 0; exp",
    ),
    (
        "validator float",
        ["--val_func", "rule.py:number"],
        "number returned 0.5 on sample 0; expec",
    ),
    (
        "validator error",
        ["--val_func", "rule.py:boom"],
        "boom raised KeyError on sample 0: 'plate'",
    ),
    (
        "validator exit",
        ["--val_func", "rule.py:leave"],
        "leave raised SystemExit on sample 0: bye",
    ),
    (
        "validator arguments",
        ["--val_func", "rule.py:one"],
        "one raised TypeError on sample 0: one()",
    ),
    (
        "validator in manual mode",
        ["--manual", "--val_func", "rule.py:boom"],
        "boom raised KeyError on sample 0: 'plate'",
    ),
    (
        "validator of the data set",
        ["--val_func", "rule.py:boom", "--val_scope", "dataset"],
        "boom raised KeyError on the data set: 'plate'",
    ),
    (
        "margin of a validator",
        ["--val_func", "rule.py:refuse", "--margin", "0.5"],
        "margin needs a tolerance or cos_sim; a val_func only says yes or no",
    ),
    (
        "report folder missing",
        ["--output_json", "no/r.json"],
        "no/r.json: no such folder no; expec",
    ),
    (
        "report is a folder",
        ["--output_json", "samples"],
        "--output_json samples: is a folder, exp",
    ),
    (
        "report under a file",
        ["--output_json", "dashes/r.json"],
        "dashes/r.json: no such folder dash",
    ),
]

MISTAKES += [
    (
        "report over the model",
        ["--output_json", "model.onnx"],
        "model.onnx: exists and is no repor",
    ),
    ("too many ids", ["--fp32_nodes", "@huge"], "huge: over 256 MB; expected a list of op ids"),
]
LONG = "long" * 100
MISTAKES += [
    (f"too long a name for {flag}", [flag, f"{LONG}{suffix}"], "File name too long")
    for flag, suffix in {
        "--input_onnx": "",
        "--sample_dir": "",
        "--workspace": "",
        "--output_json": "",
        "--val_func": ".py:check",
    }.items()
]
MISTAKES += [
    ("too long a name of ids", ["--fp32_nodes", f"@{LONG}"], "File name too long"),
    ("too long a name of options", ["--compile_options", f"@{LONG}"], "File name too long"),
]

REFUSED_BY_THE_ENGINE = [
    ("unknown option", ["--compile_options", '{"speed": 9}'], "compile option 'speed' is unknown"),
    (
        "option type",
        ["--compile_options", '{"subnormals": []}'],
        "'subnormals' is []; expected one",
    ),
    (
        "option value",
        ["--compile_options", "@options.json"],
        "'subnormals' is 'sometimes'; expected",
    ),
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    made = plain_bench(tmp_path_factory.mktemp("flags"), GENTLE, rows(), rows(seed=1))
    for name, content in FILES.items():
        made.file(name, content)
    with made.file("huge", b"").open("r+b") as huge:
        huge.truncate(257 << 20)  # takes no room on the disk
    assert made.run().code == 0
    return made


@pytest.mark.parametrize(
    ("words", "text", "code"),
    [(*row[1:], 2) for row in MISTAKES] + [(*row[1:], 3) for row in REFUSED_BY_THE_ENGINE],
    ids=[row[0] for row in MISTAKES + REFUSED_BY_THE_ENGINE],
)
def test_a_mistake_is_named_writes_nothing_and_spoils_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, words: list[str], text: str, code: int
) -> None:
    monkeypatch.chdir(bench.folder)
    bench.json.unlink(missing_ok=True)
    before = bench.written()
    outcome = bench.run(*words)
    assert (outcome.code, outcome.out, outcome.report) == (code, "", None)
    assert text in outcome.err
    assert "Traceback" not in outcome.err
    assert bench.written() == before
    again = bench.run("--clean") if "--clean" in words else bench.run()
    assert (again.code, again.found["fp32_nodes"]) == (0, [])


@pytest.mark.parametrize(
    ("words", "text", "code"),
    [(*row[1:], 3) for row in REFUSED_BY_THE_ENGINE],
    ids=[row[0] for row in REFUSED_BY_THE_ENGINE],
)
def test_options_that_are_refused_leave_no_mark_in_a_new_workspace(
    tmp_path: Path, words: list[str], text: str, code: int
) -> None:
    bench = plain_bench(tmp_path, GENTLE)
    options = [w.replace("@", f"@{bench.folder}/") for w in words]
    bench.file("options.json", FILES["options.json"])
    refused = bench.run(*options)
    assert (refused.code, text in refused.err) == (code, True)
    assert bench.run().code == 0


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("", "topsideas: error: the following arguments are required: TARGET"),
        ("gcu", "topsideas gcu: error: the following arguments are required: COMMAND"),
        ("npu mix_precision", "argument TARGET: invalid choice: 'npu' (choose from"),
        ("gcu quantize", "argument COMMAND: invalid choice: 'quantize' (choose from"),
        ("gcu mix_precision", "are required: --input_onnx, --sample_dir, --workspace"),
        ("onnx mix_precision --list_ops", "are required: --input_onnx"),
        ("gcu mix_precision --list_ops --input_onnx no.onnx", "no.onnx: no such model file"),
    ],
)
def test_an_incomplete_line_says_what_is_missing(line: str, text: str) -> None:
    code, out, err = run_words(line.split())
    assert (code, out) == (2, "")
    assert text in err
