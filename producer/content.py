"""Which sources are images, told from their first bytes, where their names do not tell."""

from pipeline.errors import Code, ItemError, PermanentError
from pipeline.runs import is_image_name
from pipeline.storage import Listed, ObjectStore

_BYTES = 1024
_NO_IMAGE = (Code.EMPTY_OBJECT, Code.NOT_AN_IMAGE, Code.UNSUPPORTED_FORMAT)


def no_image(store: ObjectStore, bucket: str, row: Listed) -> dict[str, object] | None:
    """The row of a source that is no image we read; None when it is one, is named like one, or cannot be looked at.

    Asks the store once, for 1024 bytes. What cannot be looked at now is a worker's to judge, who can try again.
    """
    from model.codecs.probe import sniff  # Pillow's plugins: only for who asks for contents

    if is_image_name(row.key):
        return None
    try:
        if not row.bytes:
            raise PermanentError(Code.EMPTY_OBJECT, "the object has no bytes")
        sniff(store.peek(bucket, row.key, _BYTES, etag=row.etag))
    except ItemError as error:
        if error.code not in _NO_IMAGE:
            return None
        return {
            "key": row.key, "outcome": "skipped", "code": str(error.code), "reason": error.reason, "bytes": row.bytes,
            "etag": row.etag,
        }  # fmt: skip
    return None
