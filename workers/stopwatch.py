"""What the stages of one image take, up to and with the one that fails."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from pipeline.errors import ItemError


class Stopwatch:
    """Times stages by `with stopwatch("decode"):`; an `ItemError` that leaves one carries the times of all.

    Args:
        before: milliseconds of stages that other processes have run.
        took: told the milliseconds of every stage that succeeds.

    Attributes:
        milliseconds: by stage, in their order; a stage that ran twice has the sum.
    """

    def __init__(
        self,
        before: Mapping[str, float] | None = None,
        took: Callable[[str, float], object] = lambda stage, milliseconds: None,
    ) -> None:
        self.milliseconds = dict(before or {})
        self._took = took

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a stage."""
        started = time.perf_counter()
        try:
            yield
        except ItemError as error:
            error.milliseconds = self.milliseconds
            raise
        finally:
            spent = (time.perf_counter() - started) * 1000
            self.milliseconds[stage] = round(self.milliseconds.get(stage, 0) + spent, 2)
        self._took(stage, spent)
