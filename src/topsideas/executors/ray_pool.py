"""Workers that are Ray actors, on this machine or all over a cluster."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from topsideas.errors import EngineError, TopsideasError, UsageError
from topsideas.executors.base import Done, Event, Joined, Lost, Seat, Worker
from topsideas.executors.ray_keeper import LocalRay
from topsideas.executors.ray_start import (
    AUTO,
    CLIENT,
    LOCAL,
    first_line,
    import_ray,
    join,
    join_local,
)

# A worker that cannot start so many times in a row is given up.
_STARTS = 3
# Seconds within which a worker must have started: a cluster may have no room for any.
_STARTING = 600.0


@dataclass(frozen=True)
class RayExecutor:
    """Runs workers on Ray.

    Attributes:
        address: ``local`` starts Ray on this machine for as long as the search takes, reachable
            from this machine only; ``auto`` joins the cluster this machine belongs to;
            ``ray://HOST:PORT`` one that is elsewhere.
        workers: How many; one per device if there are several, else one per processor.
        devices: The cards of each machine; a worker owns one of them.
        resources: What Ray must set aside for a worker, by name: ``CPU``, ``GPU``, ``memory`` in
            bytes, or a resource of the cluster's own.

    Raises:
        UsageError: The address or a number makes no sense.
    """

    address: str = LOCAL
    workers: int | None = None
    devices: Sequence[int] = ()
    resources: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        host = urlsplit(self.address).hostname if self.address.startswith(CLIENT) else None
        if self.address not in (LOCAL, AUTO) and not host:
            raise UsageError(
                f"ray_address {self.address!r}: expected local, auto or ray://HOST:PORT"
            )
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers {self.workers!r}: expected at least 1")
        if len(set(self.devices)) < len(self.devices):
            raise UsageError(f"devices {list(self.devices)}: expected each card once")

    @property
    def shares_files(self) -> bool:
        """Whether workers surely see this machine's files."""
        return self.address == LOCAL

    def without(self, some: int) -> tuple[int, RayExecutor | None]:
        """Leave some of the workers to somebody else."""
        left = max(0, self.count - some)
        return self.count - left, replace(self, workers=left) if left else None

    def open(
        self, make: Callable[[Seat], Worker], given_up: Callable[[], bool] = lambda: False
    ) -> RayPool:
        """Connect, and start the workers. Raises EngineError and GivenUp."""
        return RayPool(self, make, given_up)

    @property
    def count(self) -> int:
        """How many workers there are to be."""
        return self.workers or len(self.devices) or os.cpu_count() or 1


class RayPool:
    """See :class:`topsideas.executors.base.Pool`."""

    def __init__(
        self,
        executor: RayExecutor,
        make: Callable[[Seat], Worker],
        given_up: Callable[[], bool],
    ) -> None:
        self._executor = executor
        self._local: LocalRay | None = None
        self._owns = False
        try:
            self._ray = self._connected(given_up)
            self.seats = self._placed()
            self._run = uuid.uuid4().hex[:6]
            self._class = _actor_class(self._ray)
            self._make = self._ray.put(make)
            self._actors: dict[int, Any] = {}
            self._starting: dict[Any, int] = {}
            self._working: dict[Any, tuple[int, int]] = {}
            self._fails: dict[int, int] = {}
            self._lives = self._births = 0
            self._since = self.now()
            for seat in self.seats:
                self._start(seat.number)
        except BaseException:
            self.close()
            raise

    def _connected(self, given_up: Callable[[], bool]) -> Any:
        """Ray, joined to a cluster that others started, or to one of our own."""
        here = self._executor.address == LOCAL and not _is_joined()
        if here:  # it starts while Ray is imported here
            self._local = LocalRay(self._executor.count)
        ray = import_ray()
        if ray.is_initialized():
            return ray
        self._owns = True
        if self._local is not None:
            join_local(ray, self._local.address(given_up))
        else:
            join(ray, self._executor.address)
        return ray

    def share(self, value: Any) -> Any:
        """Put a value into Ray's object store; it travels to a machine when it is needed there."""
        return self._ray.put(value)

    def submit(
        self, seat: int, ticket: int, task: Any, shared: Sequence[Any] = (), name: str = ""
    ) -> None:
        """Call the actor."""
        method = self._actors[seat].work
        if name:
            method = method.options(name=name)
        self._working[method.remote(ticket, task, *shared)] = seat, ticket

    def stop(self, ticket: int) -> None:
        """Tell the actor."""
        for seat, given in self._working.values():
            if given == ticket:
                self._actors[seat].stop.remote(ticket)

    def wait(self, seconds: float | None) -> list[Event]:
        """What happened."""
        refs = [*self._working, *self._starting]
        if not refs:
            raise EngineError("no worker is left: none could start; see Ray's logs")
        if not self._lives:
            seconds = min(_STARTING if seconds is None else seconds, self._patience())
        ready, rest = self._ray.wait(refs, num_returns=1, timeout=seconds)
        if ready and rest:
            more, _ = self._ray.wait(rest, num_returns=len(rest), timeout=0)
            ready = [*ready, *more]
        return [event for ref in ready for event in self._events(ref)]

    def now(self) -> float:
        """Seconds."""
        return time.monotonic()

    def close(self) -> None:
        """End the actors, and Ray if it was started here."""
        for actor in getattr(self, "_actors", {}).values():
            with contextlib.suppress(Exception):  # whatever Ray says of one that is gone
                self._ray.kill(actor)
        if self._owns:
            import_ray().shutdown()
        if self._local is not None:
            self._local.end()

    # --- what happens to actors ----------------------------------------------------------------

    def _events(self, ref: Any) -> list[Event]:
        if ref in self._starting:
            return self._started(ref, self._starting.pop(ref))
        if ref not in self._working:  # its worker was lost meanwhile
            return []
        seat, ticket = self._working.pop(ref)
        errors = self._ray.exceptions
        try:
            return [Done(seat, ticket, self._ray.get(ref))]
        except errors.RayActorError as error:
            return self._lost(seat, [ticket], error)
        except errors.RayTaskError as error:
            if isinstance(error.cause, MemoryError):
                return self._lost(seat, [ticket], error.cause)
            raise _as_ours(error) from error
        except errors.OutOfMemoryError as error:
            return self._lost(seat, [ticket], error)
        except (errors.ObjectLostError, errors.TaskCancelledError) as error:
            return [Lost(seat, (ticket,), first_line(error), alive=True)]

    def _started(self, ref: Any, seat: int) -> list[Event]:
        try:
            where = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._fails[seat] = self._fails.get(seat, 0) + 1
            cause = getattr(error, "cause", None) or error
            refused = _own_error(error)
            if refused is not None and not self._lives:
                raise refused from error
            self._end(seat)
            if self._fails[seat] < _STARTS:
                self._start(seat)
            elif not (self._starting or self._actors):
                raise EngineError(f"no worker can start: {first_line(cause)}") from error
            return []
        self._lives += 1
        self._fails[seat] = 0
        return [Joined(seat, f"worker {seat} on {where}")]

    def _lost(self, seat: int, tickets: list[int], error: BaseException) -> list[Event]:
        """The end of a worker and of all it was given; another takes its seat."""
        tickets += [t for s, t in self._working.values() if s == seat]
        self._working = {r: (s, t) for r, (s, t) in self._working.items() if s != seat}
        self._end(seat)
        self._start(seat)
        return [Lost(seat, tuple(tickets), first_line(error))]

    def _patience(self) -> float:
        """Seconds until a first worker must be there. Raises EngineError if that is over."""
        left = self._since + _STARTING - self.now()
        if left <= 0:
            raise EngineError(
                f"no worker started within {_STARTING:g} s; a worker needs "
                f"{self._needs() or 'nothing'}, and the Ray cluster has left "
                f"{self._ray.available_resources()}. Remedy: wait until others are done, or ask "
                "for less with --worker_resources"
            )
        return left

    def _start(self, seat: int) -> None:
        options = self._placement(seat)
        self._births += 1
        name = f"topsideas worker {seat}{_device_text(self.seats[seat])} ({self._run}"
        actor = self._class.options(name=f"{name}-{self._births})", **options).remote(
            self._make, self.seats[seat]
        )
        self._actors[seat] = actor
        self._starting[actor.ready.remote()] = seat

    def _end(self, seat: int) -> None:
        actor = self._actors.pop(seat, None)
        with contextlib.suppress(Exception):  # whatever Ray says of one that is gone
            self._ray.kill(actor)

    # --- where they are ------------------------------------------------------------------------

    def _placed(self) -> list[Seat]:
        """A seat per device of each machine, or as many as were asked for."""
        nodes = self._nodes()
        devices = list(self._executor.devices)
        asked = self._executor.workers
        if devices:
            count = min(asked or len(nodes) * len(devices), len(nodes) * len(devices))
            pairs = [(node, device) for device in devices for node in nodes][:count]
            self._homes = [node for node, _ in pairs]
            return [
                Seat(at, device, self._homes.count(node))
                for at, (node, device) in enumerate(pairs)
            ]
        count = asked or max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        self._homes = []
        return [Seat(at, None, -(-count // len(nodes))) for at in range(count)]

    def _nodes(self) -> list[str]:
        """The machines that have what a worker needs."""
        needed = {k: v for k, v in self._executor.resources.items() if k != "memory"}
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        fit = [
            node["NodeID"]
            for node in alive
            if all(node["Resources"].get(name, 0) >= amount for name, amount in needed.items())
        ]
        if not fit:
            raise EngineError(
                f"no machine of the Ray cluster has {dict(needed)} for a worker; it has "
                f"{[node['Resources'] for node in alive]}"
            )
        return fit

    def _needs(self) -> dict[str, float]:
        """What Ray must set aside for a worker."""
        return {"CPU": 1 if self._executor.address != LOCAL else 0, **self._executor.resources}

    def _placement(self, seat: int) -> dict[str, Any]:
        resources = self._needs()
        options: dict[str, Any] = {
            "num_cpus": resources.pop("CPU"),
            "num_gpus": resources.pop("GPU", 0),
            "scheduling_strategy": "SPREAD",
        }
        if "memory" in resources:
            options["memory"] = int(resources.pop("memory"))
        if resources:
            options["resources"] = resources
        if self._homes:  # a card is where it is
            strategies = self._ray.util.scheduling_strategies
            options["scheduling_strategy"] = strategies.NodeAffinitySchedulingStrategy(
                self._homes[seat], soft=False
            )
        return options


def _actor_class(ray: Any) -> Any:
    class Actor:
        """Holds a worker; what it is told to stop, it hears while it works."""

        def __init__(self, make: Callable[[Seat], Worker], seat: Seat) -> None:
            self._worker = make(seat)
            self._stopped = -1

        @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
        def ready(self) -> str:
            """Where it is."""
            return f"{ray.util.get_node_ip_address()}, process {os.getpid()}"

        @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
        def stop(self, ticket: int) -> None:
            """Give a task up; tickets grow, so all older ones are given up too."""
            self._stopped = max(self._stopped, ticket)

        def work(self, ticket: int, task: Any, *shared: Any) -> Any:
            """Do a task."""
            return self._worker.work(task, shared, lambda: ticket <= self._stopped)

    # One that dies is replaced here, not by Ray, so that what it was at is known.
    return ray.remote(concurrency_groups={"control": 1}, max_restarts=0)(Actor)


def _is_joined() -> bool:
    """Whether this process is part of a cluster already."""
    return "ray" in sys.modules and bool(import_ray().is_initialized())


def _own_error(error: BaseException | None) -> TopsideasError | None:
    """Our error that a worker raised, wherever Ray put it."""
    while error is not None:
        cause = getattr(error, "cause", None)
        if isinstance(cause, TopsideasError):
            return cause
        error = error.__cause__
    return None


def _as_ours(error: Any) -> TopsideasError:
    return _own_error(error) or EngineError(f"a worker failed: {first_line(error.cause or error)}")


def _device_text(seat: Seat) -> str:
    return "" if seat.device is None else f" on device {seat.device}"
