"""boto3 made lighter: what it would work out anew for every request, or keep in memory for nothing."""

import os
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import boto3
import botocore.session
from botocore.utils import parse_timestamp

from pipeline import __version__

_SERVICES = frozenset({"s3", "sts", "sso", "oidc", "portal.sso"})
"""S3, and what may be asked for credentials."""

USER_AGENT: Final = f"mattemill/{__version__} Boto3/{boto3.__version__}"
"""boto3's own says more, and is put together twice for each request."""


def aws_session() -> boto3.Session:
    """A session whose credentials and region are found the usual AWS way."""
    core = botocore.session.get_session()
    # boto3 keeps what it knows of 300 services, 5 MB in every process.
    known, _ = core.get_component("data_loader").load_data_with_path("endpoints")
    for partition in known["partitions"]:
        partition["services"] = {name: of for name, of in partition["services"].items() if name in _SERVICES}
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=timestamp)
    # boto3 itself knows AWS_DEFAULT_REGION only; every other AWS SDK reads AWS_REGION.
    return boto3.Session(region_name=os.environ.get("AWS_REGION") or None, botocore_session=core)


def timestamp(value: Any) -> datetime:
    """Parse a time as botocore does, with less guessing: that took two thirds of our time for a page of a listing.

    Raises:
        ValueError: when it is none.
    """
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value) if value[10:11] == "T" else parsedate_to_datetime(value)
        except ValueError:
            pass
    found: datetime = parse_timestamp(value)
    return found
