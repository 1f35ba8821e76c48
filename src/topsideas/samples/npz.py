"""The folder convention: ``sample{id}_inputs.npz`` beside ``sample{id}_outputs.npz``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from topsideas.errors import SampleError
from topsideas.samples.archive import MAX_BYTES, read_npz
from topsideas.samples.checks import Sizes, check_arrays, check_declared, check_golden
from topsideas.samples.sample import Array, Sample
from topsideas.samples.signature import Signature, TensorSpec

_NAME = re.compile(r"sample([0-9]+)_(inputs|outputs)\.npz")
_CONVENTION = (
    "expected sample{id}_inputs.npz and, for golden outputs, sample{id}_outputs.npz, "
    "with id 0, 1, 2, ..."
)
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class SampleFile:
    """Where one sample lies. Its arrays are read when asked for, and not kept.

    Attributes:
        id: The number in the file name.
        inputs_path: The inputs.
        golden_path: The golden outputs, None if there are none.
        signature: What the arrays are checked against.
        max_bytes: The most that either file may hold when decompressed.
    """

    id: int
    inputs_path: Path
    golden_path: Path | None
    signature: Signature
    max_bytes: int = MAX_BYTES

    def load(self) -> Sample:
        """Read and check the sample.

        Raises:
            SampleError: A file is damaged or does not fit the model.
        """
        sizes: Sizes = {}
        path, specs = self.inputs_path, self.signature.inputs
        inputs = check_arrays(self._read(path, specs), specs, str(path), sizes)
        if self.golden_path is None:
            return Sample(self.id, inputs, None)
        path, specs = self.golden_path, self.signature.outputs
        found = self._read(path, [spec.of_any_shape() for spec in specs])
        return Sample(self.id, inputs, *check_golden(found, specs, str(path), sizes))

    def _read(self, path: Path, specs: Sequence[TensorSpec]) -> dict[str, Array]:
        fits = partial(check_declared, specs=specs, where=str(path))
        return read_npz(path, self.max_bytes, fits)


@dataclass(frozen=True, slots=True)
class SampleFolder:
    """The samples of a folder.

    Attributes:
        path: The folder.
        files: One entry per sample, by id.
        ignored: Names of files that look like samples but do not follow the convention.
    """

    path: Path
    files: tuple[SampleFile, ...]
    ignored: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Sample]:
        """Load one sample at a time."""
        return (file.load() for file in self.files)


def scan_folder(
    path: str | Path, signature: Signature, *, max_bytes: int = MAX_BYTES
) -> SampleFolder:
    """Find the samples of a folder; their arrays are read and checked later, one by one.

    Raises:
        SampleError: The folder is missing or holds no sample, an id occurs twice, or golden
            outputs have no inputs.
    """
    folder = Path(path)
    names = _file_names(folder)
    inputs, outputs = _by_id(folder, names, "inputs"), _by_id(folder, names, "outputs")
    ignored = tuple(name for name in names if _looks_like_sample(name))
    _check_any(folder, names, ignored, inputs or outputs)
    _check_paired(folder, inputs, outputs)
    files = tuple(
        SampleFile(i, inputs[i], outputs.get(i), signature, max_bytes) for i in sorted(inputs)
    )
    return SampleFolder(folder, files, ignored)


def _file_names(folder: Path) -> list[str]:
    """Names of the regular files: opening a pipe or a device could wait forever."""
    if folder.exists() and not folder.is_dir():
        raise SampleError(f"{folder}: is a file, expected a folder of samples; {_CONVENTION}")
    try:
        return [entry.name for entry in sorted(folder.iterdir()) if _is_usable(entry)]
    except FileNotFoundError as error:
        raise SampleError(f"{folder}: no such sample folder; {_CONVENTION}") from error
    except OSError as error:
        raise SampleError(f"{folder}: cannot be read: {error.strerror}") from error


def _is_usable(entry: Path) -> bool:
    """Whether it is a file. Raises where a sample is none: evidence would be missing unseen."""
    if entry.is_file():
        return True
    if _NAME.fullmatch(entry.name):
        found = "a link that leads to no file" if entry.is_symlink() else "no file"
        raise SampleError(
            f"{entry}: is {found}, expected an npz archive; repair it, or remove it if the "
            "sample is not to be judged"
        )
    return False


def _by_id(folder: Path, names: Iterable[str], role: str) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None or match[2] != role:
            continue
        other = found.setdefault(int(match[1]), folder / name)
        if other.name != name:
            raise SampleError(
                f"{folder}: {other.name} and {name} have the same id {int(match[1])}, "
                "expected one file per id; rename or remove one"
            )
    return found


def _looks_like_sample(name: str) -> bool:
    meant = name.lower().endswith(".npz") or name.lower().startswith("sample")
    return meant and _NAME.fullmatch(name) is None


def _check_any(
    folder: Path, names: list[str], ignored: tuple[str, ...], found: dict[int, Path]
) -> None:
    if found:
        return
    shown = list(ignored or names)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    listed = f"found {', '.join(shown[:_SHOWN])}{more}" if shown else "the folder has no files"
    raise SampleError(f"{folder}: holds no sample: {listed}; {_CONVENTION}")


def _check_paired(folder: Path, inputs: dict[int, Path], outputs: dict[int, Path]) -> None:
    for number in sorted(set(outputs) - set(inputs)):
        raise SampleError(
            f"{folder}: {outputs[number].name} has no inputs, expected "
            f"sample{number}_inputs.npz beside it; add it or remove the golden file"
        )
