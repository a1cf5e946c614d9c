"""What `publish` really puts into Redis: options that Celery does not know would be dropped in silence."""

import json
from typing import cast

import pytest

from pipeline.ids import ItemId, Key, RunId
from pipeline.jobs import Job
from pipeline.ledger import connect
from pipeline.runs import HIGH, NORMAL
from pipeline.settings import Settings
from workers.app import length, lists, make_app, oldest, publish


@pytest.mark.parametrize(("priority", "index"), [(HIGH, 0), (NORMAL, 1)])
def test_a_published_job_lies_in_its_queue_with_its_priority_and_fed_number(
    settings: Settings, priority: int, index: int
) -> None:
    app = make_app(settings)
    client = connect(settings)
    publish(app, [Job(RunId("r"), [ItemId("0123456789ab")], [Key("a.jpg")], 7, "matte.u2netp.320x320")], priority)
    (raw,) = cast(list[bytes], client.lrange(lists("matte.u2netp.320x320")[index], 0, -1))
    message = json.loads(raw)
    assert message["headers"]["fed"] == 7
    assert message["headers"]["ignore_result"] is True
    assert message["headers"]["task"] == "mattemill.matte"
    assert message["content-type"] == "application/json"
    assert message["headers"]["argsrepr"] == "320x320: a.jpg"  # a row in Flower
    assert message["headers"]["kwargsrepr"] == "run r"
    assert (length(client, "matte.u2netp.320x320"), oldest(client, "matte.u2netp.320x320")) == (1, 7)
    client.close()
    app.close()


def test_one_client_serves_all_messages_until_the_connections_are_new(settings: Settings) -> None:
    app = make_app(settings)
    job = Job(RunId("r"), [ItemId("0123456789ab")], [Key("a.jpg")], 7, "matte.u2netp.320x320")
    with app.connection() as connection:
        channel = connection.default_channel
        with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
            assert first is second
        assert channel.client is not first  # it waits on a connection of its own
        channel._disconnect_pools()
        with channel.conn_or_acquire() as third:
            assert third is not first
            assert third.ping()
    client = connect(settings)
    publish(app, [job], NORMAL)
    client.client_kill_filter(_type="normal", skipme=True)
    publish(app, [job], NORMAL)  # a cut connection is made again
    assert length(client, job.queue) == 2
    client.close()
    app.close()
