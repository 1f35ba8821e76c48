"""The command line: ``topsideas TARGET COMMAND``. Heavy imports wait until a command runs."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from importlib import import_module

from topsideas.errors import EXIT_INTERRUPTED, TopsideasError
from topsideas.report.text import printable


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    0 accuracy reached, 1 not reached, 2 bad usage or input, 3 engine failure, 130 interrupted.

    Args:
        argv: The words after the program's name; those of the process by default.
    """
    from topsideas.cli.arguments import build_parser

    _survive_encodings()
    words = list(sys.argv[1:] if argv is None else argv)
    args = build_parser(listing="--list_ops" in words).parse_args(words)
    try:
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
        _say(str(error))
        return TopsideasError.exit_code


def _survive_encodings() -> None:
    """What a terminal's encoding cannot show is shown as an escape, not refused."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _say(message: str) -> None:
    """Messages quote names out of files, which may hold what a terminal obeys."""
    shown = "\n".join(printable(line) for line in message.split("\n"))
    print(f"topsideas: error: {shown}", file=sys.stderr)  # noqa: T201
