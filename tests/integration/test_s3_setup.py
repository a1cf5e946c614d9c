"""What only `S3Store` has: its ways to be set up wrongly."""

from pathlib import Path

import boto3
import pytest

from pipeline.errors import Code, MattemillError, PermanentError, SetupError, TransientError
from pipeline.ids import Key
from pipeline.s3 import S3Store
from pipeline.settings import Settings, load_settings
from tests.stores import (
    CALLS,
    LARGE,
    assert_one_sentence,
    at,
    every_call,
    fails,
    put,
    sentence,
    session_of,
    unreachable_code,
)
from workers.local.ports import free_ports


class TestS3Setup:
    def test_create_bucket_is_content_with_our_own(self, settings: Settings, aws_session: boto3.Session) -> None:
        with S3Store(settings, session=aws_session) as store:
            store.create_bucket("created-twice")
            put(store, "created-twice", "kept")
            store.create_bucket("created-twice")
            assert store.head("created-twice", Key("kept")) is not None
            with pytest.raises(SetupError):
                store.create_bucket("Not_A/Bucket")

    @pytest.mark.parametrize("call", CALLS)
    def test_wrong_keys_are_denied(
        self, settings: Settings, aws_session: boto3.Session, s3_bucket: str, call: str
    ) -> None:
        access_key = aws_session.get_credentials().access_key  # type: ignore[union-attr]
        for wrong in (session_of(access_key, "wrong-secret"), session_of("WRONGKEY", "wrong-secret")):
            with S3Store(settings, session=wrong) as store, fails(PermanentError, Code.ACCESS_DENIED):
                every_call(store, s3_bucket)[call]()

    def test_check_bucket_tells_wrong_keys_from_a_missing_bucket_and_a_closed_port(
        self, settings: Settings, aws_session: boto3.Session, s3_bucket: str
    ) -> None:
        wrong = S3Store(settings, session=session_of("WRONGKEY", "wrong-secret"))
        closed = S3Store(at(free_ports(1)[0]), session=aws_session)
        right = S3Store(settings, session=aws_session)
        said = [sentence(store, bucket) for store, bucket in ((wrong, s3_bucket), (closed, s3_bucket), (right, "nope"))]
        assert "does not accept these credentials" in said[0]
        assert "cannot be reached" in said[1]
        assert "There is no bucket nope" in said[2]
        for text in said:
            assert_one_sentence(text)
            assert "Hint:" in text
            assert "wrong-secret" not in text
        for store in (wrong, closed, right):
            store.close()

    @pytest.mark.parametrize("call", CALLS)
    def test_a_closed_port_is_transient(self, aws_session: boto3.Session, call: str) -> None:
        with (
            S3Store(at(free_ports(1)[0]), session=aws_session) as store,
            fails(TransientError, unreachable_code(call)),
        ):
            every_call(store, "bucket")[call]()

    def test_no_credentials_at_all(self, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        without_aws(monkeypatch, tmp_path)
        with S3Store(settings) as store:
            with pytest.raises(SetupError, match="No S3 credentials were found") as caught:
                store.check_bucket("bucket")
            assert "AWS_ACCESS_KEY_ID" in caught.value.hint
            with fails(TransientError, Code.ACCESS_DENIED):
                store.get("bucket", Key("a"), max_bytes=LARGE)

    def test_credentials_and_region_from_the_environment(
        self,
        settings: Settings,
        aws_session: boto3.Session,
        s3_bucket: str,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        without_aws(monkeypatch, tmp_path)
        credentials = aws_session.get_credentials()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", credentials.access_key)  # type: ignore[union-attr]
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", credentials.secret_key)  # type: ignore[union-attr]
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_ports(1)[0]}")  # not for this machine
        with S3Store(settings) as store:
            store.check_bucket(s3_bucket)

    @pytest.mark.parametrize("profile", ["", "no-such-profile"])
    def test_what_cannot_be_set_up_is_a_sentence(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, profile: str
    ) -> None:
        without_aws(monkeypatch, tmp_path)
        if profile:
            monkeypatch.setenv("AWS_PROFILE", profile)
        settings = load_settings(s3_endpoint_url="http://127.0.0.1:9" if profile else "not an address")
        with pytest.raises(SetupError, match=profile or "not an address"):
            S3Store(settings)

    def test_a_password_in_the_address_is_not_repeated(self, aws_session: boto3.Session) -> None:
        settings = load_settings(s3_endpoint_url=f"http://me:hunter2@127.0.0.1:{free_ports(1)[0]}")
        with S3Store(settings, session=aws_session) as store:
            with pytest.raises(MattemillError) as caught:
                store.check_bucket("bucket")
            assert "hunter2" not in str(caught.value)
            with pytest.raises(MattemillError) as caught:
                store.get("bucket", Key("a"), max_bytes=LARGE)
            assert "hunter2" not in str(caught.value)


def without_aws(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "SECURITY_TOKEN", "PROFILE", "REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
