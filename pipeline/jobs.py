"""The messages that travel through Celery: frozen, versioned, JSON; an unknown field or version is refused.

A message says which items to work on, never where they lie: buckets, keys and recipe come from the ledger, so a forged
message cannot point anywhere. `keys` is there for people who watch Flower.
"""

from dataclasses import asdict
from typing import Self

from pydantic import ConfigDict, StrictInt, StrictStr, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from pipeline.errors import MattemillError
from pipeline.ids import ItemId, RunId

VERSION = 1
ENCODE_QUEUE = "encode"
LONGEST = 32
"""The most items in one message."""
_NAME, _KEY = 200, 4096
"""Characters; S3's keys end at 1024 bytes."""


class MessageError(MattemillError):
    """A message that this version cannot take."""


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class Job:
    """Work on 1 to 32 items of one run.

    Attributes:
        v: version of this message.
        run: the run.
        items: the items; all were fed at the same moment to the same queue.
        keys: their source keys, for people to read.
        fed: the number of this feeding; the ledger refuses a copy whose number no longer stands.
        queue: where the message lies.
    """

    run: StrictStr
    items: list[StrictStr]
    keys: list[StrictStr]
    fed: StrictInt
    queue: StrictStr
    v: StrictInt = VERSION

    def message(self) -> dict[str, object]:
        """The message as Celery keyword arguments."""
        return {"job": asdict(self)}

    @classmethod
    def parse(cls, message: object) -> Self:
        """Read a message.

        Raises:
            MessageError: when it is of another version, has unknown or missing fields, or too much in it.
        """
        if isinstance(message, dict) and message.get("v", VERSION) != VERSION:
            raise MessageError(f"message version {message['v']!r:.20} is not {VERSION}: upgrade this worker")
        try:
            job = TypeAdapter(cls).validate_python(message)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            field = ".".join(map(str, first["loc"]))
            raise MessageError(
                f"message refused: {field:.60}: {first['msg']}"
            ) from None  # the cause shows its contents
        if not 1 <= len(job.items) <= LONGEST:
            raise MessageError(f"message refused: {len(job.items)} items, expected 1 to {LONGEST}")
        for what, texts, most in (("name", [job.run, job.queue, *job.items], _NAME), ("key", job.keys, _KEY)):
            if too_long := [len(text) for text in texts if len(text) > most]:
                raise MessageError(f"message refused: a {what} of {too_long[0]} characters, expected up to {most}")
        return job

    @property
    def run_id(self) -> RunId:
        """The run, typed."""
        return RunId(self.run)

    @property
    def item_ids(self) -> list[ItemId]:
        """The items, typed."""
        return [ItemId(item) for item in self.items]
