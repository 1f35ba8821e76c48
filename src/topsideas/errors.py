"""Every error the tool raises on purpose.

    TopsideasError
    ├── UsageError            the command line or an argument makes no sense           exit 2
    ├── InputError            a file or array that was given is not what it must be    exit 2
    │   ├── ModelError            the ONNX model
    │   ├── SampleError           an npz sample
    │   ├── PlanError             op ids, names or plan files
    │   └── ValidatorError        the user's ``val_func`` raised, hung or returned a non-bool
    ├── WorkspaceError        the workspace is foreign, locked or not writable          exit 2
    ├── BaselineError         even fp32 misses the golden outputs: nothing to search    exit 1
    └── EngineError           an engine is missing, refused, or failed                 exit 3

Messages name the value, what was expected, and the remedy. Anything else that escapes is a bug
of ours, not of the user.
"""

from __future__ import annotations

EXIT_INTERRUPTED = 130
"""What the command line returns after Ctrl-C; no error, the best answer so far is kept."""


EXIT_BUG = 4
"""What the command line returns after an error that nobody foresaw: a bug of ours."""


def reason(error: Exception) -> str:
    """What the system says of a file, without the path: messages begin with that."""
    return str(getattr(error, "strerror", None) or error)


class TopsideasError(Exception):
    """Root of all errors raised on purpose. ``exit_code`` is what the command line returns."""

    exit_code = 2


class UsageError(TopsideasError):
    """An argument or a combination of arguments makes no sense."""


class InputError(TopsideasError):
    """A file or an array that was given is not what it must be."""


class ModelError(InputError):
    """The ONNX model cannot be read or is not usable."""


class SampleError(InputError):
    """A sample file or array does not fit the convention or the model."""


class PlanError(InputError):
    """An op id, an op name or a plan file does not fit the model."""


class ValidatorError(InputError):
    """The user's validation function raised, or returned something that is not a bool."""


class WorkspaceError(TopsideasError):
    """The workspace belongs to another model or options, is in use, or cannot be written."""


class BaselineError(TopsideasError):
    """Even with every op in fp32 the golden outputs are missed, so no plan can pass."""

    exit_code = 1


class EngineError(TopsideasError):
    """An engine is not available, refuses the request, or failed while compiling or running."""

    exit_code = 3
