"""What ``convert`` and ``export`` share: flags, the file to write, and what is told afterwards."""

from __future__ import annotations

import argparse
import contextlib
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topsideas.errors import UsageError

if TYPE_CHECKING:
    from topsideas.calibration.export import Export
    from topsideas.graph.loading import Model

# A body's ops are told of themselves.
_CONTAINER = "control flow"
_SHOWN = 6


def add_shared(parser: argparse.ArgumentParser) -> None:
    """Flags of both commands."""
    add = parser.add_argument
    add(
        "--io_precision",
        choices=("keep", "low"),
        default="keep",
        help="the type of float32 inputs and outputs: kept, or the low one (default: %(default)s)",
    )
    add(
        "--fixed_weights",
        action="store_true",
        help="weights listed among the inputs, where a caller may replace them, become constants "
        "and can be stored low",
    )
    add(
        "--sample_dir",
        metavar="DIR",
        help="compare the written model with the emulator on the first two samples of this "
        "folder; without it on generated inputs",
    )
    add("--quiet", action="store_true", help="print errors only")


def target_file(output: str) -> Path:
    """The file to write. Raises UsageError."""
    from topsideas.report.files import is_device

    path = Path(output)
    if path.is_dir() or not path.name:
        raise UsageError(f"--output {output}: is a folder, expected the file to write")
    if is_device(path):
        raise UsageError(f"--output {output}: is a device or a pipe, expected the file to write")
    return path


def sample_inputs(model: Model, folder: str | None) -> Iterable[dict[str, Any]]:
    """Inputs of the samples in a folder, read one by one; none without a folder.

    Raises:
        SampleError: The folder holds no samples.
    """
    if folder is None:
        return ()
    from topsideas.samples.npz import scan_folder
    from topsideas.samples.signature import signature_of

    return (sample.inputs for sample in scan_folder(folder, signature_of(model)))


def working(args: Namespace, what: str) -> AbstractContextManager[object]:
    """A line on a terminal's standard error for as long as it takes."""
    from rich.console import Console

    console = Console(stderr=True)
    quiet = args.quiet or not console.is_terminal
    return contextlib.nullcontext() if quiet else console.status(what)


def tell(lines: Iterable[str]) -> None:
    """Print lines to standard output; names in them come from files."""
    from topsideas.report.output import standard_output
    from topsideas.report.text import printable

    console = standard_output()
    for line in lines:
        console.print(printable(line), markup=False)


def told(export: Export, model: Model, precision: str) -> Iterator[str]:
    """What there is to tell of a model that was written."""
    candidates = len(model.candidates)
    yield (
        f"{export.files[0]}: {export.low} of {candidates} candidate ops in {precision}, "
        f"{len(model.ops) - export.low} of {len(model.ops)} ops as they were"
    )
    for file in export.files[1:]:
        yield f"{file}: its weights, which must stay beside it"
    yield (
        f"{export.bytes} bytes{_of_source(model)}; {export.casts} casts, {export.cast_bytes} "
        "bytes through them per pass"
    )
    yield from (f"check: {line}" for line in export.checks)
    yield from (f"note: {line}" for line in (*model.notes, *export.warnings))
    yield from _pinned(model)
    if model.inlined:
        yield "note: local functions were inlined; ids index the inlined model"


def _pinned(model: Model) -> Iterator[str]:
    """Why ops that hold floats are no candidates."""
    reasons = Counter(
        op.reason
        for op in model.ops
        if "FLOAT" in op.dtypes and op.type != "Constant" and not op.reason.startswith(_CONTAINER)
    )
    for reason, count in reasons.most_common(_SHOWN):
        if reason:
            yield f"note: {count} op{'' if count == 1 else 's'} pinned to fp32: {reason}"


def _of_source(model: Model) -> str:
    if model.path is None:
        return ""
    files = {model.path, *model.files}
    return f", the fp32 model has {sum(file.stat().st_size for file in files)}"
