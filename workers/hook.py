"""Tells a webhook or a command that a run of a named sweep has ended, with its summary as JSON.

At least once: a finisher that dies in between is followed by another, which tells it again. What goes wrong is logged
and changes nothing of the run. An address may hold a secret, so only its host is ever written anywhere.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.parse import urlsplit

import structlog

from pipeline.ids import Key
from pipeline.runs import RunSpec
from pipeline.settings import Settings
from pipeline.storage import ObjectStore
from producer.sweeps.file import load_sweeps

log = structlog.get_logger(__name__)
FAILURES = 100
"""The most failed images in a summary that is told; the report has all."""
_LARGEST = 1 << 30
_TRIES = 3
_PAUSES = (1.0, 4.0)
_TIMEOUT = 10.0
_COMMAND_TIMEOUT = 60.0


class HookError(Exception):
    """The hook was not told; the sentence holds no secret."""


def call_hook(settings: Settings, spec: RunSpec, store: ObjectStore) -> None:
    """Tell the hook of the run's sweep, if it has one; never raises for what the hook does."""
    if not spec.sweep or settings.sweeps is None:
        return
    try:
        hook = load_sweeps(settings).sweep(spec.sweep).hook
        if not hook:
            return
        tell(hook, summary_of(spec, store))
    except Exception as error:  # noqa: BLE001 - whatever a hook does, the run is done and its reports are there
        log.warning("hook_failed", run=spec.run, sweep=spec.sweep, error=str(error))
    else:
        log.info("hook_told", run=spec.run, sweep=spec.sweep)


def summary_of(spec: RunSpec, store: ObjectStore) -> bytes:
    """What a hook is told, as JSON: the run's summary, its sweep, and where its report is.

    Raises:
        ItemError: when the summary cannot be read.
    """
    place = spec.reports
    about = json.loads(store.get(place.bucket, Key(f"{place.key}summary.json"), max_bytes=_LARGEST).body)
    told = {name: value for name, value in about.items() if name not in ("spec", "manifest")}
    told["failures"] = about["failures"][:FAILURES]
    told |= {"sweep": spec.sweep, "source": str(spec.source), "to": str(spec.target), "report": f"{place}report.html"}
    return json.dumps(told, ensure_ascii=False).encode()


def tell(hook: str | Sequence[str], body: bytes, sleep: Callable[[float], None] = time.sleep) -> None:
    """Send `body` to a webhook (three tries, 10 s each) or give it to a command (one minute) on its standard input.

    Raises:
        HookError: when it was not taken.
    """
    if not isinstance(hook, str):
        _run(hook, body)
        return
    for tried in range(_TRIES):
        try:
            _post(hook, body)
        except HookError:
            if tried == _TRIES - 1:
                raise
            sleep(_PAUSES[tried])
        else:
            return


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """A summary goes where the file says, and nowhere else."""


def _post(url: str, body: bytes) -> None:
    place = urlsplit(url)
    host = place.hostname or "?"
    if place.scheme not in ("http", "https"):
        raise HookError(f"the webhook at {host} has an address of an unknown kind")
    headers = {"Content-Type": "application/json", "User-Agent": "mattemill"}
    request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - the scheme is checked above
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=_TIMEOUT):
            pass
    except urllib.request.HTTPError as error:
        error.close()
        raise HookError(f"the webhook at {host} answered {error.code}") from None
    except (OSError, HTTPException, ValueError) as error:  # their texts may hold the address
        reason = getattr(error, "reason", error)
        told = reason.strerror if isinstance(reason, OSError) and reason.strerror else type(reason).__name__
        raise HookError(f"the webhook at {host} cannot be reached: {told}") from None


def _run(command: Sequence[str], body: bytes) -> None:
    name = command[0]
    try:
        # A group of its own, so that what it starts ends with it when it takes too long.
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise HookError(f"the command {name} cannot be started: {error.strerror}") from None
    try:
        child.communicate(body, timeout=_COMMAND_TIMEOUT)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise HookError(f"the command {name} took more than {_COMMAND_TIMEOUT:g} s") from None
    if child.returncode:
        raise HookError(f"the command {name} ended with status {child.returncode}")
