"""A Ray on this machine, in processes of its own: what a search starts, it can also end at once.

``ray.init`` would start them as children of the process that searches, and cannot be interrupted
while they start, which takes half a minute on a busy machine. So a process in between, the keeper,
does so. It holds on as long as its standard input is open, which the kernel closes whatever the
search dies of.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from threading import Event, Thread

from topsideas.errors import EngineError
from topsideas.executors.base import GivenUp
from topsideas.executors.ray_start import LOCAL, QUIET, first_line, import_ray, no_ray

# The memory that Ray's processes share, bytes; it holds the model and the samples, and spills to
# disk.
_OBJECT_STORE = 256 << 20
# Ray gives a machine 30 s to start its processes, which a busy one exceeds: it is tried so often.
_ATTEMPTS = 2
# Seconds between two looks whether anybody still needs it.
_LOOK = 0.1
# Seconds that it has to end by itself.
_ENDING = 10.0
_KEEP = (
    "import sys; sys.path = [folder for folder in sys.path if folder]; "
    "from topsideas.executors.ray_keeper import keep; keep(int(sys.argv[1]))"
)
# Ray listens on the loopback device only, as it does on a desktop system: whoever reaches a port
# of it may run code. Its workers would run at a low priority, and starve where others are busy.
_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class LocalRay:
    """See the module. It starts in the background.

    Args:
        processors: As many as it takes itself to have.

    Raises:
        EngineError: Ray is not there.
    """

    def __init__(self, processors: int) -> None:
        if find_spec("ray") is None:
            raise no_ray("No module named 'ray'")
        self._keeper = subprocess.Popen(
            [sys.executable, "-c", _KEEP, str(processors)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_ENVIRONMENT},
            start_new_session=True,  # so that Ctrl-C at the terminal is for the search alone
        )

    def address(self, given_up: Callable[[], bool]) -> str:
        """Where it is, once it has started.

        Raises:
            EngineError: It cannot start.
            GivenUp: Nobody needs it any more.
        """
        assert self._keeper.stdout is not None
        while not select.select([self._keeper.stdout], [], [], _LOOK)[0]:
            if given_up():
                raise GivenUp
        line = self._keeper.stdout.readline().decode()
        address, _, error = line.strip().partition(" ")
        if error or not address:
            raise EngineError(f"Ray cannot start on this machine: {error or 'it was ended'}")
        return address

    def end(self) -> None:
        """Have all its processes end; that takes seconds, for which nobody needs to wait."""
        for stream in (self._keeper.stdin, self._keeper.stdout):
            assert stream is not None
            stream.close()
        Thread(target=self._keeper.wait, daemon=True).start()


def keep(processors: int) -> None:
    """Be the keeper: print where Ray is, or a space and why it cannot start."""
    started, needless = Event(), Event()
    Thread(target=_watch, args=(started, needless), daemon=True).start()
    try:
        address = _start(processors)
    except Exception as error:  # Ray raises RuntimeError, ConnectionError and a plain Exception
        print(f" {first_line(error)}", flush=True)  # noqa: T201 - the search reads it
        return
    started.set()
    print(address, flush=True)  # noqa: T201
    needless.wait()
    import_ray().shutdown()


def _watch(started: Event, needless: Event) -> None:
    sys.stdin.read()
    needless.set()
    if started.is_set():  # what starts now cannot be told to stop
        time.sleep(_ENDING)
    os.killpg(0, signal.SIGKILL)


def _start(processors: int, attempts: int = _ATTEMPTS) -> str:
    ray = import_ray()
    try:
        ray.init(
            LOCAL,
            num_cpus=processors,
            object_store_memory=_OBJECT_STORE,
            include_dashboard=False,
            **QUIET,
        )
    except Exception as error:
        if attempts == 1 or "timed out" not in str(error):
            raise
        ray.shutdown()
        return _start(processors, attempts - 1)
    return str(ray.get_runtime_context().gcs_address)
