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
