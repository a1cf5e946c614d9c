from datetime import UTC, datetime

import pytest
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.utils import parse_timestamp

from pipeline.s3_session import aws_session, timestamp
from tests.stores import Nothing


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-28T05:49:23.000Z",
        "2026-11-28T05:49:23Z",
        "2026-11-28T05:49:23.123456+02:00",
        "Sat, 28 Nov 2026 05:49:23 GMT",
        "20261128T054923Z",
        "1795844963",
        1795844963,
        1795844963.25,
    ],
)
def test_times_are_those_that_botocore_reads(value: str | float) -> None:
    assert timestamp(value) == parse_timestamp(value)
    assert timestamp(value).tzinfo is not None


@pytest.mark.parametrize("value", ["", "soon", "2026-11-28Tsoon"])
def test_what_is_no_time(value: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        timestamp(value)


def test_a_client_reads_times_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def guess(value: object) -> None:
        pytest.fail(f"botocore guesses what {value!r} is")

    monkeypatch.setattr("botocore.parsers.DEFAULT_TIMESTAMP_PARSER", guess)
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    client = aws_session().client("s3", endpoint_url="http://s3.example:9000", **keys)
    headers = {"last-modified": "Sat, 28 Nov 2026 05:49:23 GMT", "content-length": "5"}

    def answer(request: AWSRequest, **_: object) -> AWSResponse:
        return AWSResponse(request.url, 200, headers, Nothing())

    client.meta.events.register("before-send.s3", answer)
    found = client.head_object(Bucket="bucket", Key="a")["LastModified"]
    assert found == datetime(2026, 11, 28, 5, 49, 23, tzinfo=UTC)


def test_the_region_may_be_called_as_every_aws_tool_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert aws_session().region_name == "eu-central-1"
