"""Every failure an image or a command can meet.

The way of an error: whatever goes wrong while one image is handled is raised as a `PermanentError` (the image fails,
with this code and sentence) or a `TransientError` (the image goes back to the ledger and is tried again later). What
goes wrong while a command or a process is set up is a `SetupError`: one sentence, one hint, exit code 2.
"""

from collections.abc import Mapping
from enum import StrEnum


class Code(StrEnum):
    """Why an image failed. These names stand in manifests and reports: never rename one."""

    NOT_FOUND = "not_found"
    ACCESS_DENIED = "access_denied"
    EMPTY_OBJECT = "empty_object"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    TOO_LARGE = "too_large"
    CHANGED_WHILE_PROCESSING = "changed_while_processing"
    ENGINE_ERROR = "engine_error"
    ENCODE_ERROR = "encode_error"
    UPLOAD_FAILED = "upload_failed"
    OUTPUT_CONFLICT = "output_conflict"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    CANCELLED = "cancelled"


class MattemillError(Exception):
    """Base of every error of our own."""


class ItemError(MattemillError):
    """One image went wrong.

    Attributes:
        code: the failure code for manifest and report.
        reason: one sentence for a person: what happened, expected against got. It does not repeat the key.
        milliseconds: what each stage took until then, for the row of the failure; whoever times the stages sets it.
    """

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.milliseconds: Mapping[str, float] = {}

    def __reduce__(self) -> tuple[type["ItemError"], tuple[Code, str]]:
        return type(self), (self.code, self.reason)


class PermanentError(ItemError):
    """Trying again will not help: the image has failed."""


class TransientError(ItemError):
    """Trying again later may help; `code` is what the image fails with when the tries are used up."""


class SetupError(MattemillError):
    """A command or a process cannot start or go on.

    Attributes:
        hint: what the user can do about it; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = str(self.args[0])
        return f"{message} Hint: {self.hint}" if self.hint else message
