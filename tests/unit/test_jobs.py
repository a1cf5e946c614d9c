import pytest

from pipeline.jobs import Job, MessageError

GOOD = {"run": "r", "items": ["i"], "keys": ["a b.jpg"], "fed": 7, "queue": "encode", "v": 1}


def test_a_message_survives_its_way() -> None:
    job = Job("r", ["i"], ["产品 01.jpg"], 7, "encode")
    assert Job.parse(job.message()["job"]) == job


@pytest.mark.parametrize(
    "change",
    [{"v": 2}, {"bucket": "elsewhere"}, {"items": []}, {"items": ["i"] * 33}, {"fed": "7"}, {"run": None}],
)
def test_a_message_that_does_not_fit_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        Job.parse(GOOD | change)


def test_a_message_without_a_field_is_refused() -> None:
    with pytest.raises(MessageError, match="run"):
        Job.parse({name: value for name, value in GOOD.items() if name != "run"})
