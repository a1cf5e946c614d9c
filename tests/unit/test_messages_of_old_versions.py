"""Workers of two versions run side by side during an upgrade: what one has left in Redis, the other takes."""

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from kombu.utils.json import loads

from pipeline.errors import SetupError
from pipeline.ids import ETag, ItemId, Key, RunId
from pipeline.jobs import ENCODE_QUEUE, VERSION, Job, MessageError
from pipeline.runs import NORMAL, Item, NewerRunError, RunSpec
from tests.conftest import ROOT
from workers.app import ENCODE, MATTE

OLD = ROOT / "tests" / "data" / "messages"
MESSAGES = sorted(OLD.glob("v*/*.json"))
RUNS = sorted((OLD / "ledger").glob("run-*.json"))


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def job_in(path: Path) -> Any:
    """The message's `job` as a worker's task gets it."""
    envelope = json.loads(path.read_text())
    assert envelope["content-type"] == "application/json"
    assert envelope["properties"]["body_encoding"] == "base64"
    _, kwargs, _ = loads(base64.b64decode(envelope["body"]))
    return kwargs["job"]


@pytest.mark.parametrize("path", MESSAGES, ids=name)
def test_this_version_takes_the_message(path: Path) -> None:
    raw = job_in(path)
    job = Job.parse(raw)
    assert job.run == "20261124-041233-9f3a1c"
    assert job.items == raw["items"]
    assert job.fed == json.loads(path.read_text())["headers"]["fed"]  # where housekeeping reads it


@pytest.mark.parametrize("path", MESSAGES, ids=name)
def test_the_task_still_has_this_name_and_queue(path: Path) -> None:
    envelope, job = json.loads(path.read_text()), Job.parse(job_in(path))
    assert envelope["headers"]["task"] == (ENCODE if job.queue == ENCODE_QUEUE else MATTE)
    assert envelope["properties"]["delivery_info"]["routing_key"] == job.queue
    assert job.queue in (ENCODE_QUEUE, "matte.u2netp.320x320")


@pytest.mark.parametrize("path", [path for path in MESSAGES if path.parent.name == f"v{VERSION}"], ids=name)
def test_a_worker_that_took_this_message_takes_what_is_sent_now(path: Path) -> None:
    """It refuses unknown fields and other types: another shape needs another version."""
    raw = job_in(path)
    sent = Job("r", ["i"], ["k"], 1, "encode").message()["job"]
    assert isinstance(sent, dict)
    assert {field: type(value) for field, value in sent.items()} == {field: type(value) for field, value in raw.items()}


def test_every_version_up_to_this_one_has_messages_here() -> None:
    assert {path.parent.name for path in MESSAGES} >= {f"v{VERSION}"}


@pytest.mark.parametrize("path", RUNS, ids=name)
def test_a_run_of_an_older_ledger_is_read_and_what_is_missing_means_what_it_meant(path: Path) -> None:
    fields = json.loads(path.read_text())
    spec = RunSpec.load(path.read_text())
    assert spec.run == RunId("20261124-041233-9f3a1c")
    assert spec.size_buckets == ("320x320",)
    defaults = {field.name: field.default for field in dataclasses.fields(RunSpec)}
    for field in dataclasses.fields(RunSpec):
        expected = fields.get(field.name, defaults[field.name])
        assert getattr(spec, field.name) == (tuple(expected) if isinstance(expected, list) else expected)
    assert RunSpec.load(spec.dump()) == spec


def test_the_oldest_run_writes_and_reports_where_it_always_did() -> None:
    spec = RunSpec.load((OLD / "ledger" / "run-first.json").read_text())
    assert spec.output_key(Key("2026-11-23/shoes/a.jpg")) == "day/shoes/a.png"
    assert str(spec.reports) == "s3://cutouts/day/_mattemill/20261124-041233-9f3a1c/"
    assert spec.priority == NORMAL


def test_an_item_of_an_older_ledger_is_read() -> None:
    item = Item.load(ItemId("w3hN0qUxTb2c"), (OLD / "ledger" / "item-first.json").read_bytes())
    etag = ETag("d41d8cd98f00b204e9800998ecf8427e-3")
    assert item == Item(ItemId("w3hN0qUxTb2c"), Key("2026-11-23/产品 照片 01.jpg"), etag, 1234567, "320x320")


@pytest.mark.parametrize(("file", "unknown"), [("run-field", "'shadow'"), ("run-recipe", "shadow=soft")])
def test_a_run_of_a_newer_version_is_refused_in_a_sentence(file: str, unknown: str) -> None:
    with pytest.raises(NewerRunError) as refusal:
        RunSpec.load((OLD / "newer" / f"{file}.json").read_text())
    told = str(refusal.value)
    assert "20261124-041233-9f3a1c was started by a newer Mattemill" in told
    assert unknown in told
    assert "upgrade this worker" in told
    assert isinstance(refusal.value, SetupError)  # a command ends with that sentence
    assert isinstance(refusal.value, MessageError)  # a worker leaves the message to others


def test_an_item_of_a_newer_version_is_refused_in_a_sentence() -> None:
    with pytest.raises(NewerRunError, match="5 parts"):
        Item.load(ItemId("w3hN0qUxTb2c"), (OLD / "newer" / "item-longer.json").read_bytes())


def test_a_message_of_a_newer_version_is_refused_in_a_sentence() -> None:
    raw = job_in(MESSAGES[0])
    with pytest.raises(MessageError, match=rf"version {VERSION + 1} .* upgrade this worker"):
        Job.parse({**raw, "v": VERSION + 1, "shadow": "soft"})
