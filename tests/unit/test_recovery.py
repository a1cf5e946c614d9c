"""How soon what died with its worker is worked on again, by the settings that everything is shipped with.

That it is at all, and by housekeeping, `tests/integration/test_pipeline.py` shows with real workers that are killed.
"""

import os

import pytest

import celeryconfig
from pipeline.settings import Settings, load_settings
from workers.housekeeping import _LEASE_MS, _RECLAIM_SECONDS

_STANDBY_SECONDS = 1.0
"""Between two tries of who stands by to lead; see `workers.house.keep_house`."""
_LAST_WORK_SECONDS = 20.0
"""For the last images themselves, a batch and an upload, and for the reports."""


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [name for name in os.environ if name.startswith("MATTEMILL_")]:
        monkeypatch.delenv(name)
    return load_settings()


def test_a_run_whose_last_items_died_with_their_worker_ends_within_a_minute(shipped: Settings) -> None:
    leader = _LEASE_MS / 1000 + _STANDBY_SECONDS  # dies too, at worst; the items' time runs meanwhile
    found = max(shipped.held_timeout, shipped.waiting_timeout, leader) + _RECLAIM_SECONDS
    assert found + _STANDBY_SECONDS + _LAST_WORK_SECONDS <= 60


def test_nobody_waits_for_the_broker_to_give_messages_back(shipped: Settings) -> None:
    returns = celeryconfig.broker_transport_options["visibility_timeout"]
    assert isinstance(returns, int)
    assert returns > 100 * max(shipped.held_timeout, shipped.waiting_timeout)


def test_one_touch_that_is_missed_costs_nobody_the_work(shipped: Settings) -> None:
    assert 3 * shipped.touch_interval <= shipped.held_timeout
