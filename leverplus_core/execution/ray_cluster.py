"""Workers as actors of a Ray cluster, or of a Ray on this machine.

An actor that is lost is not restarted by Ray, whose retries wait for a machine that is gone; another is made, which
Ray places where there is room. Autoscaling is Ray's. What computes is `Worker`, as everywhere.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from leverplus_core.errors import ExecutionError, needs_extra
from leverplus_core.execution.contract import Chunk, Computed, Results
from leverplus_core.execution.pool import Lost, Pool
from leverplus_core.execution.worker import ModelSpec, Reply, Worker
from leverplus_core.text import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leverplus_core.recipes.settings import ExecutionSettings

NOTICE_S, PATIENCE_S = 30.0, 600.0
"""Seconds after which a person is told that the cluster has no room, and after which it is no longer waited for: a
machine that autoscaling starts takes minutes."""
REACH_S = 10.0
"""Seconds in which the head must take a connection."""
WATCH_S, GONE_S = 5.0, 20.0
"""Seconds between two looks whether the cluster's head answers, and after which it is taken to be gone."""


class RayPool:
    """The executor on Ray: connects with its first chunk, and leaves with `close`."""

    def __init__(self, settings: ExecutionSettings, spec: ModelSpec, say: Callable[[str], None]) -> None:
        self._settings, self._spec, self._say = settings, spec, say
        self._pool: Pool | None = None
        self._joined = False
        self._left = threading.Event()

    def map(self, chunks: Sequence[Chunk]) -> Iterator[Computed]:
        """As `Pool.map`. Raises ExecutionError for a cluster that cannot be reached or has no room."""
        if self._pool is None:
            self._pool = self._connect()
        yield from self._pool.map(chunks)

    def close(self) -> None:
        """End the actors, and leave the cluster if this executor joined it."""
        self._left.set()
        if self._pool is not None:
            self._pool.close()
        if self._joined:
            import ray

            ray.shutdown()
            self._joined = False

    def _connect(self) -> Pool:
        with needs_extra("ray"):
            import ray
        settings = self._settings
        # "local", not None, for which Ray joins the cluster that was last started here, though it may be dead.
        where = settings.address or os.environ.get("RAY_ADDRESS") or "local"
        if not ray.is_initialized():
            try:
                _reach(where)
                ray.init(where, log_to_driver=False, configure_logging=False, include_dashboard=False)
            except Exception as error:  # connecting raises what its many layers raise
                raise _gone(f"{where} cannot be reached", error) from error
            self._joined = True
        workers = settings.workers or _room(ray, settings)
        seats = [RaySeat(i + 1, settings, self._spec, self._say) for i in range(workers)]
        pool = Pool(f"ray:{workers}", seats, self._say)
        address = ray.get_runtime_context().gcs_address
        threading.Thread(target=self._watch, args=(pool, address), name="leverplus-ray", daemon=True).start()
        return pool

    def _watch(self, pool: Pool, address: str) -> None:
        """End the work in one line when the cluster is gone: after a minute without it Ray ends this process."""
        host, _, port = address.rpartition(":")
        failed = 0
        while not self._left.wait(WATCH_S):
            try:
                socket.create_connection((host.strip("[]"), int(port)), WATCH_S).close()
                failed = 0
            except OSError as error:
                failed += 1
                if failed * WATCH_S >= GONE_S:
                    pool.abort(_gone(f"at {address} is gone", error))
                    return


def _room(ray: Any, settings: ExecutionSettings) -> int:
    """How many workers the cluster has room for."""
    there = ray.available_resources()
    wanted = {"CPU": settings.cpus, "GPU": settings.gpus}
    return max(1, min((int(there.get(what, 0) // much) for what, much in wanted.items() if much), default=1))


def _reach(address: str) -> None:
    """Raises OSError where nothing listens at HOST:PORT, for which Ray takes minutes."""
    if found := re.fullmatch(r"(?:ray://)?\[?([^\[\]/]+)\]?:(\d+)", address):
        socket.create_connection((found[1], int(found[2])), REACH_S).close()


def _gone(what: str, error: BaseException) -> ExecutionError:
    return ExecutionError(
        f"the Ray cluster {what}: {type(error).__name__}: {one_line(error, 200).rstrip('.')}.",
        "What was measured is kept: the same command goes on from it, on this or another executor.",
    )


class RaySeat:
    """A seat for an actor."""

    def __init__(self, number: int, settings: ExecutionSettings, spec: ModelSpec, say: Callable[[str], None]) -> None:
        self._number, self._settings, self._spec, self._say = number, settings, spec, say
        self.name = f"worker {number}"
        self._actor: Any = None

    def start(self) -> bool:
        """Make an actor, wait until the cluster has room for it, and build the model in it."""
        import ray

        self.close()
        settings = self._settings
        made = ray.remote(num_cpus=settings.cpus, num_gpus=settings.gpus, max_restarts=0, max_task_retries=0)(Worker)
        with _losing(self.name):
            self._actor = made.remote()
            placed = self._actor.place.remote()
            if not ray.wait([placed], timeout=NOTICE_S)[0]:
                wanted = f"{settings.cpus:g} CPU and {settings.gpus:g} GPU"
                self._say(f"{self.name}: the cluster has no room for {wanted} yet")
                if not ray.wait([placed], timeout=PATIENCE_S)[0]:
                    raise Lost(f"found no room for {wanted} on the cluster in {PATIENCE_S:.0f} s")
            self.name = f"worker {self._number} ({ray.get(placed)})"
            reply: Reply = ray.get(self._actor.start.remote(self._spec))
        return bool(reply.get())

    def compute(self, chunk: Chunk, following: Chunk | None) -> Results:
        """The results of a chunk."""
        import ray

        with _losing(self.name):
            reply: Reply = ray.get(self._actor.compute.remote(chunk, following))
        results: Results = reply.get()
        return results

    def kill(self) -> None:
        """Kill the actor: calls of it raise."""
        import ray

        if (actor := self._actor) is not None:
            ray.kill(actor)

    def close(self) -> None:
        """Nothing is left of an actor that is not referred to."""
        if self._actor is not None:
            self.kill()
            self._actor = None


@contextmanager
def _losing(name: str) -> Iterator[None]:
    """Around calls of Ray: what they raise themselves says that the actor, or the cluster, is gone."""
    from ray.exceptions import RayActorError, RayError

    try:
        yield
    except RayActorError as error:
        raise Lost(f"was lost ({type(error).__name__})") from error
    except (RayError, ConnectionError) as error:
        raise Lost(f"cannot be reached ({type(error).__name__}: {one_line(error, 200)})") from error
