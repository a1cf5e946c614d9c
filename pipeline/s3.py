"""Objects in S3 or in any server that speaks its protocol."""

from collections.abc import Mapping
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pipeline.errors import Code, SetupError, TransientError
from pipeline.ids import ETag, Key
from pipeline.s3_body import changed, crc32_of, etag_of, read_body, took_other_bytes
from pipeline.s3_errors import S3_FAILURES, answer_of, bucket_error, is_conflict, item_error, knows_no_checksums
from pipeline.s3_session import USER_AGENT, aws_session
from pipeline.settings import Settings
from pipeline.storage import Fetched, Head, Listed, Page, PreconditionFailedError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import PutObjectOutputTypeDef

_CONNECT_TIMEOUT = 5.0
_ATTEMPTS = 3
_DEFAULT_REGION = "us-east-1"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class S3Store:
    """The `ObjectStore` on boto3.

    Credentials are found the usual AWS way when the store is made or first used. One store serves many threads.
    Open connections do not survive a fork: a store may be made before one, if it is first used after it. Close it, or
    use it as a context manager.

    Reads and unconditional writes are tried `3` times within boto3 before they count as a transient error;
    conditional writes once, because a second try would meet the first one's object and be told 412. A write whose
    checksum the server does not know is sent again without one; the store remembers that.

    Args:
        settings: names the server; AWS when there is no `s3_endpoint_url`.
        pool: connections kept open; at least the number of threads that use the store.
        session: where credentials and region come from, instead of the environment.
        read_timeout: seconds without a byte. Three tries must fit the deadline of whoever waits.

    Raises:
        SetupError: when the address is none, or the AWS configuration cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        pool: int = 16,
        session: boto3.Session | None = None,
        read_timeout: float = 15,
    ) -> None:
        self._endpoint = settings.s3_endpoint_url
        self._takes_checksums: bool | None = None  # not known before the first answer to a PUT
        try:
            session = session or aws_session()
            self._region = session.region_name or _DEFAULT_REGION
            self._client = self._open(session, pool, read_timeout, attempts=_ATTEMPTS)
            self._single_try = self._open(session, pool, read_timeout, attempts=1)
        except (BotoCoreError, ValueError) as error:
            raise SetupError(
                f"S3 cannot be set up: {error}.", "look at MATTEMILL_S3_ENDPOINT_URL and the AWS_ variables"
            ) from error

    def _open(self, session: boto3.Session, pool: int, read_timeout: float, *, attempts: int) -> "S3Client":
        own_machine = self._endpoint is not None and urlsplit(self._endpoint).hostname in _LOOPBACK
        # A SHA-256 of every byte guards against whoever sits on the wire; within a machine there is none, and a tunnel
        # that begins there has its own guard. The CRC-32 or the ETag still tells what went wrong.
        s3: Any = {"addressing_style": "path"} if self._endpoint else {}
        if own_machine:
            s3["payload_signing_enabled"] = False
        return session.client(
            "s3",
            endpoint_url=self._endpoint,
            region_name=self._region,
            config=Config(
                signature_version="s3v4",
                s3=s3,
                connect_timeout=_CONNECT_TIMEOUT,
                read_timeout=read_timeout,
                retries={"mode": "standard", "total_max_attempts": attempts},
                max_pool_connections=pool,
                tcp_keepalive=True,
                user_agent=USER_AGENT,
                # `put` sends a CRC-32 of its own: what botocore would send, trailers, few servers but AWS's take.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_supported",
                proxies={} if own_machine else None,  # HTTP_PROXY would send even 127.0.0.1 to the proxy
            ),
        )

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._client.close()
        self._single_try.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def check_bucket(self, bucket: str) -> None:
        """Raise `SetupError`, with a hint, unless the bucket exists and may be listed with these credentials."""
        try:
            # HeadBucket has no body that could tell wrong keys from missing permission.
            self._client.list_objects_v2(Bucket=bucket, MaxKeys=1)
        except S3_FAILURES as error:
            raise bucket_error(error, bucket, self._endpoint) from error

    def create_bucket(self, bucket: str) -> None:
        """Create a bucket; one that is there and ours is no error.

        Raises:
            SetupError: when it cannot be created or belongs to somebody else.
        """
        options: dict[str, Any] = {}
        if self._endpoint is None and self._region != _DEFAULT_REGION:
            options["CreateBucketConfiguration"] = {"LocationConstraint": self._region}
        try:
            self._client.create_bucket(Bucket=bucket, **options)
        except S3_FAILURES as error:
            answer = answer_of(error)
            if answer is not None and answer.code == "BucketAlreadyOwnedByYou":
                return
            if answer is not None and answer.code == "BucketAlreadyExists":
                if self._is_ours(bucket):
                    return
                raise SetupError(f"The name {bucket} belongs to somebody else's bucket.", "choose another") from error
            raise bucket_error(error, bucket, self._endpoint) from error

    def _is_ours(self, bucket: str) -> bool:
        try:
            buckets = self._client.list_buckets(Prefix=bucket).get("Buckets", [])
        except S3_FAILURES as error:
            raise bucket_error(error, bucket, self._endpoint) from error
        return any(each.get("Name") == bucket for each in buckets)

    def list_page(self, bucket: str, prefix: str, token: str | None = None) -> Page:
        """List up to 1000 objects, in the store's own order. Folder markers (keys that end in "/") are left out.

        Raises:
            SetupError: when there is no such bucket.
        """
        continuation: dict[str, Any] = {"ContinuationToken": token} if token else {}
        try:
            answer = self._client.list_objects_v2(Bucket=bucket, Prefix=prefix, **continuation)
        except S3_FAILURES as error:
            told = answer_of(error)
            if told is not None and told.status == 404:
                raise bucket_error(error, bucket, self._endpoint) from error
            raise item_error(error, Code.ATTEMPTS_EXHAUSTED) from error
        objects = tuple(
            Listed(Key(each["Key"]), etag_of(each["ETag"]), each["Size"])
            for each in answer.get("Contents", [])
            if not each["Key"].endswith("/")
        )
        more = answer.get("NextContinuationToken") if answer.get("IsTruncated") else None
        return Page(objects, more or None)

    def head(self, bucket: str, key: Key) -> Head | None:
        """Return what is known of an object, or None where there is none (or no such bucket: S3 does not say)."""
        try:
            answer = self._client.head_object(Bucket=bucket, Key=key)
        except S3_FAILURES as error:
            told = answer_of(error)
            if told is not None and told.status == 404:
                return None
            raise item_error(error, Code.ATTEMPTS_EXHAUSTED) from error
        metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
        return Head(etag_of(answer["ETag"]), answer["ContentLength"], metadata)

    def get(self, bucket: str, key: Key, *, etag: ETag | None = None, max_bytes: int) -> Fetched:
        """Fetch a whole object; where the ETag is an MD5, the body must have it.

        Args:
            bucket: S3 bucket.
            key: object key.
            etag: when given, the object must still be this one.
            max_bytes: larger objects are refused before their body is read.

        Raises:
            PermanentError: NOT_FOUND; CHANGED_WHILE_PROCESSING (the ETag differs); TOO_LARGE; EMPTY_OBJECT.
            TransientError: NOT_FOUND never; TRUNCATED when fewer, or other, bytes came than were announced.
        """
        condition: dict[str, Any] = {"IfMatch": f'"{etag}"'} if etag is not None else {}
        try:
            answer = self._client.get_object(Bucket=bucket, Key=key, **condition)
        except S3_FAILURES as error:
            told = answer_of(error)
            if told is not None and told.status == 412:
                raise changed() from error
            raise item_error(error, Code.ATTEMPTS_EXHAUSTED) from error
        with closing(answer["Body"]):
            return read_body(answer, etag, max_bytes)

    def peek(self, bucket: str, key: Key, most: int, *, etag: ETag) -> bytes:
        """Fetch the first `most` bytes of an object, or all where there are fewer.

        Raises:
            PermanentError: NOT_FOUND; CHANGED_WHILE_PROCESSING (the ETag differs).
            TransientError: when they cannot be had now; TRUNCATED when fewer came than were announced.
        """
        try:
            answer = self._client.get_object(Bucket=bucket, Key=key, IfMatch=f'"{etag}"', Range=f"bytes=0-{most - 1}")
            with closing(answer["Body"]):
                if etag_of(answer["ETag"]) != etag:  # a server that ignores If-Match
                    raise changed()
                body = answer["Body"].read(most)  # of a server that ignores Range, too
        except S3_FAILURES as error:
            told = answer_of(error)
            if told is not None and told.status == 412:
                raise changed() from error
            if told is not None and told.status == 416:  # an empty object has no first byte
                return b""
            raise item_error(error, Code.ATTEMPTS_EXHAUSTED) from error
        if len(body) != min(most, answer["ContentLength"]):
            raise TransientError(Code.TRUNCATED, f"expected {answer['ContentLength']} bytes, got {len(body)}")
        return body

    def put(
        self,
        bucket: str,
        key: Key,
        body: bytes,
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
        if_match: ETag | None = None,
        if_none_match: bool = False,
    ) -> ETag:
        """Write a whole object atomically and return its ETag.

        Where the store takes checksums it has compared that of `body`; else the ETag must be its MD5, where it is one.

        After a `TransientError` nobody knows whether the object was written: look before the next try. An object that
        the store says is another than was sent is deleted, lest its metadata make it pass for right.

        Raises:
            TransientError: UPLOAD_FAILED, also when the store took other bytes than were sent.
            PreconditionFailedError: the object that is there is not what `if_match` or `if_none_match` demands.
            ValueError: for metadata that is not printable ASCII, or both conditions at once.
        """
        metadata = dict(metadata or {})
        for text in (*metadata, *metadata.values()):
            if not (text.isascii() and text.isprintable()):
                raise ValueError(f"S3 metadata must be printable ASCII; got {text!r}")
        condition: dict[str, Any] = {}
        if if_match is not None and if_none_match:
            raise ValueError("if_match and if_none_match exclude each other")
        if if_match is not None:
            condition["IfMatch"] = f'"{if_match}"'
        if if_none_match:
            condition["IfNoneMatch"] = "*"
        client = self._single_try if condition else self._client
        request: dict[str, Any] = {"Bucket": bucket, "Key": key, "ContentType": content_type, "Metadata": metadata}
        try:
            answer, crc32 = self._send(client, body, request | condition)
        except S3_FAILURES as error:
            if condition and is_conflict(error, if_match):
                raise PreconditionFailedError(f"another object stands at {key!r}") from error
            raise item_error(error, Code.UPLOAD_FAILED) from error
        if took_other_bytes(answer, body, crc32):
            self.delete(bucket, key)
            raise TransientError(Code.UPLOAD_FAILED, f"the store took other bytes than the {len(body)} that were sent")
        if not self._takes_checksums:  # another thread may have learnt it meanwhile
            self._takes_checksums = crc32 is not None and bool(answer.get("ChecksumCRC32"))
        return etag_of(answer["ETag"])

    def _send(
        self, client: "S3Client", body: bytes, request: dict[str, Any]
    ) -> "tuple[PutObjectOutputTypeDef, str | None]":
        """PUT a body with its CRC-32, or without where the server was seen not to know it; gives that too."""
        if self._takes_checksums is not False:
            crc32 = crc32_of(body)
            try:
                return client.put_object(**request, Body=body, ChecksumCRC32=crc32), crc32
            except ClientError as error:
                if self._takes_checksums or not knows_no_checksums(error):
                    raise
        return client.put_object(**request, Body=body), None

    def delete(self, bucket: str, key: Key) -> None:
        """Delete an object; one that is not there is no error."""
        try:
            self._client.delete_object(Bucket=bucket, Key=key)
        except S3_FAILURES as error:
            told = answer_of(error)
            if told is not None and told.code == "NoSuchKey":
                return
            raise item_error(error, Code.ATTEMPTS_EXHAUSTED) from error
