"""Failure codes and flags in plain words; the code itself is for machines."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pipeline.errors import Code

MEANINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        Code.NOT_FOUND: "not found",
        Code.ACCESS_DENIED: "access denied",
        Code.EMPTY_OBJECT: "empty file",
        Code.NOT_AN_IMAGE: "not an image",
        Code.UNSUPPORTED_FORMAT: "unsupported format",
        Code.TRUNCATED: "cut off or damaged",
        Code.TOO_LARGE: "too large",
        Code.CHANGED_WHILE_PROCESSING: "changed meanwhile",
        Code.ENGINE_ERROR: "engine error",
        Code.ENCODE_ERROR: "encode error",
        Code.UPLOAD_FAILED: "upload failed",
        Code.OUTPUT_CONFLICT: "output name taken",
        Code.ATTEMPTS_EXHAUSTED: "crashed too often",
        Code.CANCELLED: "cancelled",
        # What `model.subject.suspects` says of a matte.
        "empty": "nothing kept",
        "full": "nothing removed",
        "speckle": "specks",
        "cut_by_frame": "cut by the frame",
    }
)


def meaning(code: str) -> str:
    """What a failure code or a flag means; one of another version is its own meaning."""
    return MEANINGS.get(code, code)
