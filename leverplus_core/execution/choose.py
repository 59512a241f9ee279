"""From the settings of a recipe to an executor."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from leverplus_core.errors import ExecutionError
from leverplus_core.execution.contract import Executor, InProcess
from leverplus_core.execution.pool import Pool
from leverplus_core.execution.worker import ModelSpec
from leverplus_core.io import fingerprint
from leverplus_core.plugins.contracts import Model
from leverplus_core.recipes.settings import ExecutionSettings


def check_execution(settings: ExecutionSettings) -> None:
    """Raises ExecutionError for an executor whose package is not installed. Nothing is imported."""
    if settings.executor == "ray" and importlib.util.find_spec("ray") is None:
        raise ExecutionError("execution is 'ray', and Ray is not installed.", "Run: pip install 'leverplus[ray]'")


class Executors:
    """The executor of the runs of this process: workers stay, weights and all, while runs ask the same model."""

    def __init__(self) -> None:
        self._made: Executor | None = None
        self._of = ""

    def get(
        self,
        settings: ExecutionSettings,
        model: Callable[[], Model],
        spec: Callable[[], ModelSpec],
        say: Callable[[str], None],
    ) -> Executor:
        """The executor that `settings` name, for the model of this process or one of workers after `spec`.

        Another one that was given before is closed.
        """
        if settings.executor == "local" and settings.workers is None:
            return InProcess(model)
        wanted = spec()
        of = fingerprint([settings.model_dump(mode="json"), wanted.identity, wanted.threads, wanted.cache])
        if self._made is None or self._of != of:
            self.close()
            self._made, self._of = _workers(settings, wanted, say), of
        return self._made

    def close(self) -> None:
        """End the workers."""
        if self._made is not None:
            self._made.close()
            self._made = None


def _workers(settings: ExecutionSettings, spec: ModelSpec, say: Callable[[str], None]) -> Executor:
    if settings.executor == "ray":
        from leverplus_core.execution.ray_cluster import RayPool

        return RayPool(settings, spec, say)
    from leverplus_core.execution.processes import ProcessSeat, gpus

    each = gpus(settings.workers or 1)
    return Pool(settings.name, [ProcessSeat(i + 1, spec, gpu) for i, gpu in enumerate(each)], say)
