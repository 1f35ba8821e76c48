"""Feeds changed files to the command line and watches what it does.

``python -m tests.trust.fuzzing --seconds 3600`` records figures. The package ``atheris`` guides by
the code that a file reaches what is changed next. Each file must lead to an exit code that is
documented, with one line that says what is wrong, no traceback, nothing written elsewhere, and
memory that stays bounded.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tests.trust.mutation import MUTATORS
from tests.trust.seeds import MODELS, model, seeds

if "--target" in sys.argv:
    import atheris

    with atheris.instrument_imports(include=["topsideas"]):
        from topsideas.cli import main
else:
    from topsideas.cli import main

# What a hostile file may make the process hold beyond what it held when all was imported.
MEMORY = 3 << 30
SECONDS = 60


class FoundError(AssertionError):
    """Something that must not happen."""


class Arena:
    """A folder in which one file is hostile and all else is sound.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "samples").mkdir()
        self._outside = folder / "outside"
        self._outside.mkdir()
        (self._outside / "secret.bin").write_bytes(bytes(4))
        self.sound = folder / "sound.onnx"
        self.sound.write_bytes(model(MODELS["squares"]).SerializeToString())
        (folder / "weights.bin").write_bytes(np.float32(300).tobytes())
        self._x = np.linspace(0.5, 2, 8, dtype=np.float32).reshape(2, 4)
        self._write_sample()

    def _write_sample(self) -> None:
        np.savez(self.folder / "samples" / "sample0_inputs.npz", x=self._x)

    def commands(self, target: str, content: bytes) -> Iterator[list[str]]:
        """Put the file where it belongs; the command lines that read it."""
        out, sound = str(self.folder / "out" / "mixed.onnx"), str(self.sound)
        samples = str(self.folder / "samples")
        run = ["onnx", "mix_precision", "--sample_dir", samples, "--threads", "1", "--quiet"]
        run += ["--workspace", str(self.folder / "out" / "workspace"), "--clean", "--manual"]
        if target == "model":
            hostile = self._hostile("model.onnx", content)
            yield [*run, "--list_ops", "--input_onnx", hostile]
            yield ["onnx", "convert", "--input_onnx", hostile, "--output", out]
        elif target == "npz":
            (self.folder / "samples" / "sample0_inputs.npz").write_bytes(content)
            yield [*run, "--input_onnx", sound]
            self._write_sample()
        elif target == "plan":
            plan = self._hostile("plan.json", content)
            given = ["--plan", plan, "--input_onnx", sound]
            yield ["onnx", "export", *given, "--format", "oplist", "--output", f"{out}.txt"]
            yield ["onnx", "verify", *given, "--sample_dir", samples]
            yield [*run, "--input_onnx", sound, "--fp32_nodes", f"@{plan}"]
        else:
            options = self._hostile("options.json", content)
            yield [*run, "--input_onnx", sound, "--compile_options", f"@{options}"]

    def _hostile(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return str(self.folder / name)

    def attack(self, target: str, content: bytes) -> Counter[str]:
        """Run the commands; returns how they ended. Raises FoundError."""
        ends: Counter[str] = Counter()
        before = self._seen()
        for words in self.commands(target, content):
            code, out, err = run_words(words)
            _check(words, code, out, err)
            if self._seen() != before:
                raise FoundError(f"{words}: wrote elsewhere: {sorted(self._seen() ^ before)}")
            ends[f"{words[1]} {code}"] += 1
        return ends

    def _seen(self) -> set[tuple[str, int]]:
        """What must stay as it is: all but the place to write to and the hostile file itself."""
        found = (p for p in self.folder.rglob("*") if p.is_file())
        names = ((p.relative_to(self.folder).as_posix(), p.stat().st_size) for p in found)
        mine = ("out/", "model.onnx", "plan.json", "options.json", "samples/")
        return {(name, size) for name, size in names if not name.startswith(mine)}


def run_words(words: list[str]) -> tuple[int, str, str]:
    """Run the command line here; returns exit code and both streams. Raises FoundError."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException as error:
            where = "".join(traceback.format_exception(error))
            raise FoundError(f"{words}: {type(error).__name__} escaped\n{where}") from error
    return code, out.getvalue(), err.getvalue()


def _check(words: list[str], code: int, out: str, err: str) -> None:
    if code not in (0, 1, 2, 3):
        raise FoundError(f"{words}: exit code {code}: {err}")
    if code > 1 and "topsideas: error: " not in err:
        raise FoundError(f"{words}: exit code {code} and no message: {err!r}")
    for text in (out, err):
        if "Traceback" in text:
            raise FoundError(f"{words}: {text}")
        if any(not c.isprintable() and c != "\n" for c in text):
            raise FoundError(f"{words}: control characters in {text!r}")
    if max(map(len, err.split("\n"))) > 20_000:
        raise FoundError(f"{words}: a message of {len(err)} characters")


def grown() -> int:
    """The most bytes that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def bounded() -> None:
    """Let this process have so much more memory and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def changed(target: str, rng: random.Random) -> bytes:
    """A seed, changed once or several times over."""
    content = rng.choice(list(seeds()[target].values()))
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        content = MUTATORS[target](content, rng)
    return content


def fuzz(
    target: str, seed: int, count: int, save: Callable[[bytes], object] = lambda _: None
) -> Counter[str]:
    """Attack with ``count`` files; returns how the commands ended. Raises FoundError.

    Args:
        target: A key of the mutators.
        seed: Of the changes.
        count: How many files.
        save: Called with each file before it is tried.
    """
    ends: Counter[str] = Counter()
    rng = random.Random(f"{target} {seed}")
    with tempfile.TemporaryDirectory() as name:
        arena = Arena(Path(name))
        for _ in range(count):
            content = changed(target, rng)
            save(content)
            ends += arena.attack(target, content)
    return ends


# --- for as long as one likes -------------------------------------------------------------------


class Recorder:
    """Counts what happens over many processes: a file that kills one is found in its last words.

    Args:
        folder: Where figures, and the files that were found, are kept.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._figures = folder, folder / "figures.json"
        self.last = folder / "last"

    def read(self) -> dict[str, int]:
        """The figures so far."""
        with contextlib.suppress(FileNotFoundError):
            figures: dict[str, int] = json.loads(self._figures.read_text())
            return figures
        return {}

    def add(self, counts: Counter[str], **most: int) -> None:
        """Add counts; of ``most`` the larger one is kept."""
        figures = Counter(self.read())
        figures.update(counts)
        for name, value in most.items():
            figures[name] = max(figures[name], value)
        self._figures.write_text(json.dumps(figures, indent=1, sort_keys=True))

    def found(self, content: bytes, what: str) -> None:
        """Keep a file that did what it must not."""
        number = len(list(self.folder.glob("found*.txt")))
        (self.folder / f"found{number}").write_bytes(content)
        (self.folder / f"found{number}.txt").write_text(what)
        self.add(Counter(found=1))


def _one_target(target: str, seconds: float, seed: int, folder: Path) -> None:
    """Attack one target, guided by coverage; ends the process."""
    import atheris

    recorder, rng = Recorder(folder), random.Random(f"{target} {seed}")
    corpus, sound = folder / "corpus" / target, list(seeds()[target].values())
    corpus.mkdir(parents=True, exist_ok=True)
    for name, content in seeds()[target].items():
        (corpus / name).write_bytes(content)
    end, pending, slowest = time.monotonic() + seconds, Counter[str](), 0.0
    arena = Arena(Path(tempfile.mkdtemp()))
    bounded()

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        if rng.random() < 0.5:  # most of what libFuzzer keeps is refused at the first look
            data = rng.choice(sound)
        changed = MUTATORS[target](data, rng) if rng.random() < 0.9 else atheris.Mutate(data, most)
        return changed[:most]

    def attack(data: bytes) -> None:
        nonlocal slowest
        recorder.last.write_bytes(data)
        start = time.monotonic()
        try:
            pending.update(arena.attack(target, data))
        except FoundError as error:
            recorder.found(data, str(error))
        slowest = max(slowest, time.monotonic() - start)
        pending["files"] += 1
        if pending["files"] >= 50 or time.monotonic() > end:
            recorder.add(pending, slowest_ms=int(1000 * slowest), peak_mb=grown() >> 20)
            pending.clear()
        if time.monotonic() > end:
            os._exit(0)

    flags = [f"-timeout={SECONDS}", "-max_len=100000", "-rss_limit_mb=0", f"-seed={seed}"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], attack, custom_mutator=mutate)
    atheris.Fuzz()


def _hour(seconds: float, folder: Path) -> None:
    """Attack all targets in turn, each in processes of its own, and print the figures."""
    end, turn, recorder = time.monotonic() + seconds, 0, Recorder(folder)
    while time.monotonic() < end:
        target = list(MUTATORS)[turn % len(MUTATORS)]
        slice_ = min(300.0, seconds / len(MUTATORS), end - time.monotonic())
        words = ["--target", target, "--seconds", f"{slice_:.0f}", "--seed", str(turn)]
        done = subprocess.run(
            [sys.executable, "-m", __spec__.name, *words, "--folder", str(folder)],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            what = done.stderr.decode("utf-8", "replace")[-3000:]
            recorder.found(
                recorder.last.read_bytes(), f"{target}: ended {done.returncode}: {what}"
            )
        recorder.add(Counter(seconds=int(slice_)))
        turn += 1
        print(recorder.read(), flush=True)  # noqa: T201


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--folder", type=Path, default=Path("fuzzing"))
    parser.add_argument("--target", choices=MUTATORS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if find_spec("atheris") is None:
        parser.error(
            "the package atheris is not installed; expected it. Remedy: pip install atheris"
        )
    if args.target:
        _one_target(args.target, args.seconds, args.seed, args.folder)
    else:
        _hour(args.seconds, args.folder)


if __name__ == "__main__":
    _main()
