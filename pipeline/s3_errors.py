"""What the errors of botocore mean for an image, and for a command that sets out to use a bucket."""

from dataclasses import dataclass
from urllib.parse import urlsplit

import urllib3.exceptions
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    SSLError,
)

from pipeline.errors import Code, PermanentError, SetupError, TransientError

# All that a call of botocore or the reading of a body can raise, reading past its own wrappers included.
S3_FAILURES = (BotoCoreError, ClientError, urllib3.exceptions.HTTPError, OSError)

_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)
_WRONG_CREDENTIALS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId"})
# The credentials or the clock may be right again by the next try.
_STALE = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestTimeTooSkewed"})
_BUSY = frozenset(
    {"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "OperationAborted", "InternalError"}
    | {"ServiceUnavailable", "RequestLimitExceeded", "TooManyRequests", "BandwidthLimitExceeded"}
    | {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}  # other bytes came than were sent
)
_NO_CHECKSUMS = frozenset({"NotImplemented", "InvalidArgument", "InvalidRequest", "SignatureDoesNotMatch"})
_CREDENTIALS_HINT = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or another way that the AWS tools know"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an S3 server answered instead of success; a HEAD has no body, so its `code` is the status again."""

    status: int
    code: str
    message: str

    def __str__(self) -> str:
        told = ": ".join(part for part in (self.code, self.message) if part and part != str(self.status))
        return f"HTTP {self.status} ({told[:300]})" if told else f"HTTP {self.status}"


def answer_of(error: Exception) -> Answer | None:
    """Return what the server answered, or None when there was no answer to understand."""
    if not isinstance(error, ClientError):
        return None
    parts = error.response.get("Error", {})
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return Answer(status, str(parts.get("Code", "")), str(parts.get("Message", "")))


def is_conflict(error: Exception, if_match: str | None) -> bool:
    """Whether a conditional PUT met another object than it demands, or none where `if_match` demands one."""
    told = answer_of(error)
    if told is None:
        return False
    gone = if_match is not None and told.status == 404 and told.code != "NoSuchBucket"
    return gone or told.status == 412 or told.code == "ConditionalRequestConflict"


def knows_no_checksums(error: Exception) -> bool:
    """Whether a server may have refused a PUT because it does not know the header of a checksum."""
    told = answer_of(error)
    return told is not None and told.code in _NO_CHECKSUMS


def item_error(error: Exception, otherwise: Code) -> PermanentError | TransientError:
    """Return what an image fails with, or is tried again for.

    Args:
        error: one of `S3_FAILURES`. What means something only to one operation (404, 412) is the caller's.
        otherwise: the code for what is not about permissions.
    """
    answer = answer_of(error)
    if answer is None:
        return _without_answer(error, otherwise)
    if answer.code in _STALE:
        return TransientError(Code.ACCESS_DENIED, f"the store does not take the credentials now: {answer}")
    if answer.status >= 500 or answer.status in (0, 408, 429) or answer.code in _BUSY:
        return TransientError(otherwise, f"the store could not do it now: {answer}")
    if answer.code == "InvalidObjectState":
        return PermanentError(Code.ACCESS_DENIED, "the object is archived and must be restored first")
    if answer.status in (401, 403) or answer.code in _WRONG_CREDENTIALS:
        return PermanentError(Code.ACCESS_DENIED, f"the store said no: {answer}")
    if answer.status == 404:
        code = otherwise if otherwise is Code.UPLOAD_FAILED else Code.NOT_FOUND
        what = "bucket" if answer.code == "NoSuchBucket" else "object"
        return PermanentError(code, f"there is no such {what}")
    refused = otherwise if otherwise is Code.UPLOAD_FAILED else Code.ACCESS_DENIED
    return PermanentError(refused, f"the store refuses the request: {answer}")


def _without_answer(error: Exception, otherwise: Code) -> PermanentError | TransientError:
    if isinstance(error, _NO_CREDENTIALS):  # an instance's metadata service fails now and then
        return TransientError(Code.ACCESS_DENIED, "no complete S3 credentials were found")
    if isinstance(error, ParamValidationError):
        code = otherwise if otherwise is Code.UPLOAD_FAILED else Code.NOT_FOUND
        return PermanentError(code, "S3 cannot have an object of this name")
    return TransientError(otherwise, f"the store could not be reached or broke off ({type(error).__name__})")


def bucket_error(error: Exception, bucket: str, endpoint: str | None) -> SetupError:
    """Return why a bucket cannot be used, with what to do about it."""
    server = _shown(endpoint)
    answer = answer_of(error)
    if isinstance(error, _NO_CREDENTIALS):
        return SetupError(f"No S3 credentials were found to open the bucket {bucket}.", _CREDENTIALS_HINT)
    if isinstance(error, ParamValidationError):
        return SetupError(f"{bucket!r} cannot be the name of a bucket.", "look for a typing mistake")
    if answer is None:
        trouble = "does not speak TLS as expected" if isinstance(error, SSLError) else "cannot be reached"
        return SetupError(
            f"The S3 server {server} {trouble}, so the bucket {bucket} cannot be opened ({type(error).__name__}).",
            "is it running, and is MATTEMILL_S3_ENDPOINT_URL right?",
        )
    if answer.code in _WRONG_CREDENTIALS or answer.code in _STALE:
        return SetupError(
            f"The S3 server {server} does not accept these credentials for the bucket {bucket}: {answer}.",
            "set the computer's clock" if answer.code == "RequestTimeTooSkewed" else _CREDENTIALS_HINT,
        )
    if answer.status == 404:
        return SetupError(
            f"There is no bucket {bucket} on {server}.", "create it, or look for a typing mistake in its name"
        )
    if answer.status in (401, 403):
        return SetupError(
            f"These credentials may not use the bucket {bucket} on {server}: {answer}.",
            "they need s3:ListBucket on it, s3:GetObject to read and s3:PutObject to write",
        )
    if answer.status >= 500 or answer.code in _BUSY:
        return SetupError(f"The S3 server {server} cannot open the bucket {bucket} now: {answer}.", "try again later")
    return SetupError(
        f"The S3 server {server} refuses to open the bucket {bucket}: {answer}.",
        "are MATTEMILL_S3_ENDPOINT_URL and AWS_REGION right?",
    )


def _shown(endpoint: str | None) -> str:
    if endpoint is None:
        return "of AWS"
    parts = urlsplit(endpoint)  # without a user name and password that somebody may have put there
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
