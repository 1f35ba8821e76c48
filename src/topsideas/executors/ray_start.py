"""Starts Ray on this machine, or joins a cluster."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from topsideas.errors import EngineError

LOCAL, AUTO, CLIENT = "local", "auto", "ray://"

# A local Ray's shared memory, bytes; it holds the model and the samples, and spills to disk.
_OBJECT_STORE = 256 << 20
# Seconds within which a cluster must answer: Ray itself would try for minutes.
_ANSWERING = 10.0
_CLIENT_PORT = 10001
# Ray is started so many times, should it take too long.
_ATTEMPTS = 2
_NAMESPACE = "topsideas"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def import_ray() -> Any:
    """Ray. Raises EngineError if it is not there."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise EngineError(
            f"Ray cannot start: {error}. Remedy: pip install 'topsideas[ray]'"
        ) from error
    return ray


def connect(ray: Any, address: str, processors: int, attempts: int = _ATTEMPTS) -> None:
    """Join a cluster, or start one here; Ray gives a machine 30 s, which a busy one exceeds.

    Args:
        ray: What :func:`import_ray` returned.
        address: See :class:`topsideas.executors.ray_pool.RayExecutor`.
        processors: As many as a Ray that starts here takes itself to have.
        attempts: How often it is tried.

    Raises:
        EngineError: Nobody answers there, or Ray cannot start here.
    """
    try:
        _init(ray, address, processors)
    except Exception as error:  # Ray raises RuntimeError, ConnectionError and a plain Exception
        if address == LOCAL and attempts > 1 and "timed out" in str(error):
            ray.shutdown()
            connect(ray, address, processors, attempts - 1)
            return
        raise EngineError(
            f"Ray at {address!r} cannot be reached: {first_line(error)}; expected a "
            "cluster that runs (ray start --head), with RAY_AUTH_MODE=token if it asks for one, "
            "or --ray_address local"
        ) from error


def _init(ray: Any, address: str, processors: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "namespace": _NAMESPACE}
    if address != LOCAL:
        _knock(ray, address)
        ray.init(address, **quiet)
        return
    # Ray would have workers run at low priority: whoever else is busy here would starve them.
    with _loopback(ray), _environment("RAY_worker_niceness", "0"):
        ray.init(
            LOCAL,
            num_cpus=processors,
            object_store_memory=_OBJECT_STORE,
            include_dashboard=False,
            **quiet,
        )


def _knock(ray: Any, address: str) -> None:
    """See whether somebody answers. Raises OSError."""
    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS") or AUTO
    if "://" not in address:
        address = ray._private.services.canonicalize_bootstrap_address(address) or ""
    parts = urlsplit(address if "://" in address else f"//{address}")
    where = parts.hostname or "", parts.port or _CLIENT_PORT
    try:
        socket.create_connection(where, _ANSWERING).close()
    except OSError as error:
        raise ConnectionError(f"nobody answers at {where[0]}:{where[1]}: {error}") from error


@contextlib.contextmanager
def _loopback(ray: Any) -> Iterator[None]:
    """Have a Ray that starts meanwhile listen on 127.0.0.1 only, as it does on a desktop system.

    Whoever reaches a port of Ray may run code there. Ray decides by an environment variable, which
    its processes read, and by what it made of it in this process when it was imported.
    """
    constants = ray._private.ray_constants
    before, variable = constants.ENABLE_RAY_CLUSTER, constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    constants.ENABLE_RAY_CLUSTER = False
    try:
        with _environment(variable, "0"):
            yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _environment(variable: str, value: str) -> Iterator[None]:
    """Set a variable of the environment meanwhile."""
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def first_line(error: BaseException) -> str:
    """What an error says, in one line. Ray puts a worker's own error last, with colours."""
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    telling = lines[:1]
    if lines and "Error" in lines[-1]:
        telling = lines[-1:]
    elif telling and telling[0].endswith(":"):  # versions, of the cluster and of this process
        telling = lines
    return f"{type(error).__name__}: {' '.join(telling)}"[:300]
