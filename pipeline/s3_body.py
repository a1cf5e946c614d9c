"""Bodies of objects: read whole, and proven to be what the store has or was sent."""

import base64
import hashlib
import re
from typing import TYPE_CHECKING

from isal import isal_zlib

from pipeline.errors import Code, PermanentError, TransientError
from pipeline.ids import ETag
from pipeline.s3_errors import S3_FAILURES
from pipeline.storage import Fetched

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef, PutObjectOutputTypeDef

_PLAIN_MD5 = re.compile(r"[0-9a-f]{32}")


def etag_of(header: str) -> ETag:
    """The ETag without the marks round it."""
    return ETag(header.removeprefix("W/").strip('"'))


def read_body(answer: "GetObjectOutputTypeDef", etag: ETag | None, max_bytes: int) -> Fetched:
    """Read what a GET has answered; where its ETag is an MD5, the body must have it.

    Raises:
        PermanentError: CHANGED_WHILE_PROCESSING when it is not the object of `etag`; TOO_LARGE; EMPTY_OBJECT.
        TransientError: TRUNCATED when fewer, or other, bytes came than were announced.
    """
    found, announced = etag_of(answer["ETag"]), answer["ContentLength"]
    if etag is not None and found != etag:  # a server that ignores If-Match
        raise changed()
    if announced > max_bytes:
        raise PermanentError(Code.TOO_LARGE, f"the object has {announced} bytes; at most {max_bytes} are taken")
    if announced == 0:
        raise PermanentError(Code.EMPTY_OBJECT, "the object has no bytes")
    try:
        body = answer["Body"].read()
    except S3_FAILURES as error:
        raise TransientError(
            Code.TRUNCATED, f"the body of {announced} bytes was cut short ({type(error).__name__})"
        ) from error
    if len(body) != announced:
        raise TransientError(Code.TRUNCATED, f"expected {announced} bytes, got {len(body)}")
    if _is_md5(answer, found) and _md5(body) != found:
        raise TransientError(Code.TRUNCATED, f"all {announced} bytes came, but their MD5 is not the object's ETag")
    return Fetched(body, found)


def crc32_of(body: bytes) -> str:
    """The CRC-32 as S3 writes it: an eighteenth of the time of an MD5."""
    return base64.b64encode(isal_zlib.crc32(body).to_bytes(4, "big")).decode()


def took_other_bytes(answer: "PutObjectOutputTypeDef", body: bytes, crc32: str | None) -> bool:
    """Whether what a PUT has answered shows that the store has other bytes than `body`.

    Args:
        answer: of the PUT.
        body: what was sent.
        crc32: its CRC-32, if that was sent too; a store that answers with it has compared it. Another one's ETag says
            it, if it is an MD5.
    """
    if crc32 is not None and (compared := answer.get("ChecksumCRC32")):
        return compared != crc32
    etag = etag_of(answer["ETag"])
    return _is_md5(answer, etag) and _md5(body) != etag


def changed() -> PermanentError:
    """The error of an object that is not the one that was listed."""
    return PermanentError(
        Code.CHANGED_WHILE_PROCESSING, "the object is no longer the one that was listed: its ETag differs"
    )


def _is_md5(answer: "GetObjectOutputTypeDef | PutObjectOutputTypeDef", etag: ETag) -> bool:
    # Of objects uploaded in parts, or encrypted with KMS or a key of the customer's, the ETag is something else.
    encrypted = answer.get("ServerSideEncryption", "").startswith("aws:kms") or "SSECustomerAlgorithm" in answer
    return not encrypted and _PLAIN_MD5.fullmatch(etag) is not None


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
