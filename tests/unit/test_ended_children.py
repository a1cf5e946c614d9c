"""What the CPU worker reads in the sentence that Celery and billiard make of a child's end; they keep no status."""

from typing import Any, cast

import pytest
from billiard.einfo import ExceptionInfo
from billiard.pool import Pool
from celery.exceptions import WorkerLostError
from celery.worker.request import Request

from workers.cpu import status_of


def sentence(failure: ExceptionInfo) -> str:
    error = getattr(failure.exception, "exc", failure.exception)
    assert isinstance(error, WorkerLostError)
    return str(error)


class LostJob:
    """What billiard's pool knows of a task whose process is gone."""

    _job = 3

    def _set(self, index: object, result: tuple[bool, ExceptionInfo]) -> None:
        self.failure = result[1]


@pytest.mark.parametrize("status", [-11, -9, -15, -2, -1, -40, 0, 1, 70])
def test_billiards_sentence_tells_the_status(status: int) -> None:
    job = LostJob()
    cast(Any, Pool).mark_as_worker_lost(None, job, status)
    assert status_of(sentence(job.failure)) == status


def test_celerys_sentence_of_a_child_that_asked_to_exit_tells_the_status() -> None:
    assert status_of(sentence(cast(Any, Request)._worker_lost_info(None, SystemExit(70)))) == 70


def test_another_sentence_tells_nothing() -> None:
    assert status_of("Worker exited prematurely: KeyboardInterrupt.") is None
