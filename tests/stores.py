"""What the tests of object stores share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import boto3
import pytest

from pipeline.errors import Code, ItemError, SetupError
from pipeline.ids import ETag, Key
from pipeline.settings import Settings, load_settings
from pipeline.storage import ObjectStore

PNG = "image/png"
LARGE = 64 << 20


class Nothing:
    """A body without bytes, as urllib3 hands one out."""

    def stream(self) -> Iterator[bytes]:
        return iter(())


def put(store: ObjectStore, bucket: str, key: str, body: bytes = b"body") -> ETag:
    return store.put(bucket, Key(key), body, content_type=PNG)


@contextmanager
def fails(kind: type[ItemError], code: Code) -> Iterator[None]:
    with pytest.raises(kind) as caught:
        yield
    assert caught.value.code is code
    assert_one_sentence(caught.value.reason)


def assert_one_sentence(text: str) -> None:
    assert text
    assert "\n" not in text
    assert "Traceback" not in text
    assert len(text) < 600


def every_call(store: ObjectStore, bucket: str) -> dict[str, Callable[[], object]]:
    key = Key("a.png")
    return {
        "list": lambda: store.list_page(bucket, ""),
        "head": lambda: store.head(bucket, key),
        "get": lambda: store.get(bucket, key, max_bytes=LARGE),
        "put": lambda: store.put(bucket, key, b"abc", content_type=PNG),
        "conditional put": lambda: store.put(bucket, key, b"abc", content_type=PNG, if_none_match=True),
        "delete": lambda: store.delete(bucket, key),
    }


CALLS = ["list", "head", "get", "put", "conditional put", "delete"]


def unreachable_code(call: str) -> Code:
    return Code.UPLOAD_FAILED if "put" in call else Code.ATTEMPTS_EXHAUSTED


def session_of(access_key: str, secret_key: str) -> boto3.Session:
    return boto3.Session(aws_access_key_id=access_key, aws_secret_access_key=secret_key, region_name="us-east-1")


def at(port: int) -> Settings:
    return load_settings(s3_endpoint_url=f"http://127.0.0.1:{port}")


def sentence(store: ObjectStore, bucket: str) -> str:
    with pytest.raises(SetupError) as caught:
        store.check_bucket(bucket)
    return str(caught.value)
