"""Joins a cluster of Ray, also one that was started on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from typing import Any
from urllib.parse import urlsplit

from topsideas.errors import EngineError

LOCAL, AUTO, CLIENT = "local", "auto", "ray://"

# What Ray is started and joined with: it prints nothing.
QUIET = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "topsideas"}

# Seconds within which a cluster must answer: Ray itself would try for minutes.
_ANSWERING = 10.0
_CLIENT_PORT = 10001
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def import_ray() -> Any:
    """Ray. Raises EngineError if it is not there."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise no_ray(error) from error
    return ray


def no_ray(why: object) -> EngineError:
    """What to say where Ray is not there."""
    return EngineError(f"Ray cannot start: {why}. Remedy: pip install 'topsideas[ray]'")


def join(ray: Any, address: str) -> None:
    """Join a cluster.

    Args:
        ray: What :func:`import_ray` returned.
        address: See :class:`topsideas.executors.ray_pool.RayExecutor`.

    Raises:
        EngineError: Nobody answers there.
    """
    try:
        _knock(ray, address)
        ray.init(address, **QUIET)
    except Exception as error:  # Ray raises RuntimeError, ConnectionError and a plain Exception
        raise EngineError(
            f"Ray at {address!r} cannot be reached: {first_line(error)}; expected a "
            "cluster that runs (ray start --head), with RAY_AUTH_MODE=token if it asks for one, "
            "or --ray_address local"
        ) from error


def join_local(ray: Any, address: str) -> None:
    """Join a Ray that was started on this machine. Raises EngineError."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    # As Ray does in the process that starts one; versions that do not ask for a token lack it.
    with contextlib.suppress(ImportError):
        from ray._private.authentication import authentication_token_setup as tokens

        tokens.enable_token_auth_by_default()
    constants = ray._private.ray_constants
    before, constants.ENABLE_RAY_CLUSTER = constants.ENABLE_RAY_CLUSTER, False
    try:
        ray.init(address, **QUIET)
    except Exception as error:
        raise EngineError(f"Ray on this machine cannot be reached: {first_line(error)}") from error
    finally:
        constants.ENABLE_RAY_CLUSTER = before


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


def first_line(error: BaseException) -> str:
    """What an error says, in one line. Ray puts a worker's own error last, with colours."""
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    telling = lines[:1]
    if lines and "Error" in lines[-1]:
        telling = lines[-1:]
    elif telling and telling[0].endswith(":"):  # versions, of the cluster and of this process
        telling = lines
    return f"{type(error).__name__}: {' '.join(telling)}"[:300]
