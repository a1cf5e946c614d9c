"""Processes that tests start, and runs for them to work on."""

import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import cv2
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from pipeline.ids import ETag, Key
from pipeline.ledger import Ledger, Listing
from pipeline.runs import Item, RunSpec, item_id, new_run_id, short_hash

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@contextmanager
def process(environment: Mapping[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m ARGUMENTS`, ended with TERM, or after 30 s with KILL."""
    child = subprocess.Popen([sys.executable, "-m", *arguments], env=environment)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def metrics(port: int) -> dict[str, float]:
    """What a page for Prometheus shows, by names and labels as they are written; {} when nothing answers."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    return {
        _series(sample.name, sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _series(name: str, labels: Mapping[str, str]) -> str:
    text = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{text}}}" if text else name


def photo(number: int, background: int = 20) -> bytes:
    """A small JPEG with a rectangle; every number looks different."""
    pixels = np.full((90, 120, 3), background, np.uint8)
    pixels[20:70, 30:90] = (200, number * 37 % 256, number * 11 % 256)
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])


def put_run(ledger: Ledger, s3: "S3Client", bucket: str, bodies: Mapping[str, bytes], *, chunk: int = 0) -> RunSpec:
    """Upload the sources and list them in a run of their own."""
    spec = RunSpec(new_run_id(), bucket, "in/", bucket, "out/", "u2netp", "0" * 64, ("320x320",), chunk=chunk)
    ledger.create(spec)
    entries = []
    for key, body in bodies.items():
        etag = s3.put_object(Bucket=bucket, Key=key, Body=body)["ETag"].strip('"')
        item = Item(item_id(spec.output_key(Key(key))), Key(key), ETag(etag), len(body), "320x320")
        entries.append(Listing("todo", item, short_hash(key)))
    for page, start in enumerate(range(0, len(entries), 500)):
        ledger.list_page(spec.run, page, entries[start : start + 500])
    ledger.close_listing(spec.run, len(entries))
    return spec


def empty(s3: "S3Client", bucket: str) -> None:
    """Remove every object, so that the bucket can go."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            s3.delete_object(Bucket=bucket, Key=entry["Key"])
