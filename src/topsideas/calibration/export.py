"""The use case behind every deploy model: convert, write, and prove the file before it is given.

A file is written and proved in a folder of its own and moved only then: what fails a proof is
never where somebody could take it for a model, and what was there before stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from topsideas.engines.emulator.agreement import Agreement
from topsideas.errors import EngineError, UsageError
from topsideas.graph.conversion import Conversion, convert
from topsideas.graph.conversion_files import folder_beside, write_model
from topsideas.graph.gates import check_export
from topsideas.graph.loading import Model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics
from topsideas.samples.generated import generated_inputs
from topsideas.samples.signature import signature_of

# Running both sides takes several times a model's weights; the file is only checked beyond this.
_COMPARED_BYTES = 1 << 29

# One input shows where values are rounded: what differs between inputs is their values.
_COMPARED_INPUTS = 2

Feeds = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Export:
    """A model that was written and passed its proofs.

    Attributes:
        files: The model, then its weights if they are in a file of their own.
        low: How many ops run low.
        casts: How many casts were inserted.
        cast_bytes: What they read and write in one pass.
        checks: What was proved, and what could not be, a line each.
        warnings: What the reader must know.
    """

    files: tuple[Path, ...]
    low: int
    casts: int
    cast_bytes: int
    checks: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """The size of the files."""
        return sum(file.stat().st_size for file in self.files)


def export_model(
    model: Model,
    plan: PrecisionPlan,
    numerics: Numerics,
    path: Path,
    *,
    low_io: bool = False,
    fixed_weights: bool = False,
    inputs: Iterable[Feeds] = (),
) -> Export:
    """Write the strongly typed mixed-precision model of a plan.

    Args:
        model: The user's model.
        plan: The ops to keep in fp32.
        numerics: The low format.
        path: The ``.onnx`` file to write.
        low_io: Give inputs and outputs the low type.
        fixed_weights: Take weights off the model's inputs.
        inputs: What to compare the file and the emulator on; made up if there are none.

    Raises:
        UsageError: ``path`` would replace the user's model or its weights.
        EngineError: The low format cannot be expressed, or a runtime refuses the model.
        ModelError: The result is not valid ONNX, or does not mean what the emulator computes.
    """
    refuse_sources(model, path)
    conversion = convert(model, plan, numerics, low_io=low_io, fixed_weights=fixed_weights)
    with folder_beside(path) as folder:
        written = write_model(conversion.model, Path(folder) / path.name)
        proved = check_export(written[0], model.path, optimised=True)
        compared = _compare(model, plan, numerics, conversion, written[0], low_io, inputs)
        files = [path.parent / file.name for file in written]
        for file, target in zip(reversed(written), reversed(files), strict=True):
            file.replace(target)  # weights first: the model never points to nothing
    low = plan.low(model.candidates) - model.inexpressible(numerics.precision)
    return Export(
        files=tuple(files),
        low=len(low),
        casts=conversion.casts,
        cast_bytes=conversion.cast_bytes,
        checks=(*proved, compared),
        warnings=conversion.warnings,
    )


def refuse_sources(model: Model, path: Path) -> None:
    """Raise UsageError if ``path``, or weights beside it, would replace the user's files."""
    sources = {file.resolve() for file in (model.path, *model.files) if file is not None}
    for target in (path, path.with_name(f"{path.name}.data")):
        if target.resolve() in sources:
            raise UsageError(f"{target}: belongs to the input model; expected another file")


def _compare(
    model: Model,
    plan: PrecisionPlan,
    numerics: Numerics,
    conversion: Conversion,
    path: Path,
    low_io: bool,
    inputs: Iterable[Feeds],
) -> str:
    """Compare the file with the emulator; says on what, or why that was not possible."""
    weights = (v.const_value for v in model.graph.initializers.values())
    size = sum(tensor.nbytes for tensor in weights if tensor is not None)
    if size > _COMPARED_BYTES:
        return (
            f"not compared with the emulator: {size / 1e9:.1f} GB of weights, the limit is "
            f"{_COMPARED_BYTES / 1e9:.1f} GB"
        )
    try:
        agreement = Agreement.of(model, plan, numerics, conversion.model, path, low_io=low_io)
    except EngineError as error:
        return f"not compared with the emulator: {error}"
    given = list(islice(inputs, _COMPARED_INPUTS))
    for feeds in given:
        agreement.check(feeds)
    if given:
        return f"equal to the emulator in every bit on {_count(len(given), 'sample')}"
    return _compare_generated(model, agreement)


def _compare_generated(model: Model, agreement: Agreement) -> str:
    reason = "no inputs can be made up for it"
    for feeds in generated_inputs(signature_of(model)):
        try:
            agreement.check(feeds)
        except EngineError as error:  # of a size or a range that this model does not take
            reason = str(error)
            continue
        return "equal to the emulator in every bit on generated inputs"
    return f"not compared with the emulator: {reason}. Remedy: give samples (--sample_dir)"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
