"""Misspelt settings pass in silence in Celery: they must not here."""

from celery.app.defaults import NAMESPACES, flatten
from kombu.transport.redis import Channel

import celeryconfig


def test_every_setting_is_one_that_celery_knows() -> None:
    known = {name for name, _ in flatten(NAMESPACES)}
    ours = {name for name in vars(celeryconfig) if not name.startswith("_")}
    assert ours
    assert ours <= known


def test_every_transport_option_is_one_that_kombu_reads() -> None:
    assert set(celeryconfig.broker_transport_options) <= set(Channel.from_transport_options)


def test_only_json_is_taken() -> None:
    assert celeryconfig.accept_content == ["json"]
