"""The command line: ``topsideas TARGET COMMAND``. Heavy imports wait until a command runs."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from topsideas.errors import EXIT_BUG, EXIT_INTERRUPTED, TopsideasError
from topsideas.report.text import printable

# Engines whose runtimes may reserve more address space than there is memory, for devices.
_RESERVING = ("openvino", "onnxruntime", "topsinference")
# Of a message that was not ours.
_LONGEST = 500


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    0 accuracy reached, 1 not reached, 2 bad usage or input, 3 engine failure, 4 a bug of this
    tool, 130 interrupted.

    Args:
        argv: The words after the program's name; those of the process by default.
    """
    _survive_closed_streams()
    _survive_encodings()
    _end_like_ctrl_c()
    words = list(sys.argv[1:] if argv is None else argv)
    args = None
    try:
        from topsideas.cli.arguments import build_parser

        args = build_parser(listing="--list_ops" in words).parse_args(words)
        if getattr(args, "engine", None) not in _RESERVING:
            _bound_memory()
        # Each subcommand names its module; a run imports that one only.
        code: int = import_module(args.module).run(args, words)
        return code
    except TopsideasError as error:
        _say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        print("topsideas: interrupted", file=sys.stderr)  # noqa: T201
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) went away; that is no failure of ours.
        sys.stderr.close()
        return 0
    except OSError as error:
        # What was not foreseen where it happened: a name too long, a disk that is full.
        known = error.filename or not error.strerror
        _say(str(error) if known else f"cannot write the output: {error.strerror}")
        return TopsideasError.exit_code
    except MemoryError as error:
        _say(
            f"out of memory{f' ({error})' if str(error) else ''}; remedy: smaller samples, "
            "--threads 1, a lower --memory_limit, or a machine with more"
        )
        return TopsideasError.exit_code
    except Exception as error:  # a bug of ours: whoever runs the tool gets no page of code for it
        if getattr(args, "verbose", 0) > 1:
            traceback.print_exc()
        _say(f"{_place(error)}; this is a bug of topsideas: please report it with the command")
        return EXIT_BUG


def _bound_memory() -> None:
    """Let an allocation beyond the machine's memory fail here, rather than end other programs.

    A file of a few bytes can declare tensors of any size; what a runtime then asks for fails like
    any other op that cannot run.
    """
    if sys.platform == "win32":
        return
    import resource

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft == resource.RLIM_INFINITY or soft > memory:
        # What does not fit under the hard limit is bounded by that already.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (memory, hard))


def _place(error: Exception) -> str:
    """What was raised, and where in our code."""
    ours = [f for f in traceback.extract_tb(error.__traceback__) if "topsideas" in f.filename]
    where = f" in {ours[-1].name}, {Path(ours[-1].filename).name}:{ours[-1].lineno}" * bool(ours)
    message = " ".join(str(error).split())[:_LONGEST]
    return f"{type(error).__name__}{where}: {message} (-vv shows all)"


def _survive_closed_streams() -> None:
    """Give a stream that the caller closed nowhere to go, rather than a file of ours.

    The next file that is opened would get its number, and what a runtime in C++ prints would be
    written into it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115


def _end_like_ctrl_c() -> None:
    """What ends a job politely, or closes its terminal, keeps what was found, like Ctrl-C.

    What the caller ignores, as nohup does, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def _survive_encodings() -> None:
    """What a terminal's encoding cannot show is shown as an escape, not refused."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _say(message: str) -> None:
    """Messages quote names out of files, which may hold what a terminal obeys."""
    shown = "\n".join(printable(line) for line in message.split("\n"))
    print(f"topsideas: error: {shown}", file=sys.stderr)  # noqa: T201
