"""Misspelt settings pass in silence in Celery: they must not here."""

import pytest
from celery import Celery
from celery.app.defaults import NAMESPACES, flatten
from kombu.transport.redis import Channel

import celeryconfig
from workers.app import add_task


def test_every_setting_is_one_that_celery_knows() -> None:
    known = {name for name, _ in flatten(NAMESPACES)}
    ours = {name for name in vars(celeryconfig) if not name.startswith("_")}
    assert ours
    assert ours <= known


def test_every_transport_option_is_one_that_kombu_reads() -> None:
    assert set(celeryconfig.broker_transport_options) <= set(Channel.from_transport_options)


def test_only_json_is_taken() -> None:
    assert celeryconfig.accept_content == ["json"]


def test_a_misspelt_task_option_is_refused() -> None:
    app = Celery(set_as_current=False)
    add_task(app, "a", print, time_limit=3)
    assert app.tasks["a"].time_limit == 3
    with pytest.raises(TypeError, match="time_limt"):
        add_task(app, "b", print, time_limt=3)
    app.close()
