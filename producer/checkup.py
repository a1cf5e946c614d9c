"""What `mattemill doctor` looks at: one finding for each thing that the system stands on, all asked at once."""

import difflib
import importlib.metadata
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pipeline
from model.store import ModelStore
from pipeline.errors import SetupError
from pipeline.ids import Location
from pipeline.ledger import FEEDING_LIMIT, LEADER, LISTING_LIMIT, check, connect, share
from pipeline.s3 import S3Store
from pipeline.s3_errors import answer_of
from pipeline.settings import Settings
from producer.finding import Finding
from producer.gpu_checkup import engines, gpus, packages
from producer.service import look_at_service

_ENGINE = "onnxruntime"
_ENGINE_SECONDS = 30
_FREE_MEGABYTES = 512
_S3_SECONDS = 3.0
_OF_OTHERS = {"MATTEMILL_REDIS_PASSWORD"}
"""What compose.yaml reads."""
_FOR_GOOD = "and the same in its configuration"


def check_up(settings: Settings, buckets: Iterable[str], nonce: str, variables: Iterable[str]) -> list[Finding]:
    """Look at everything; nothing is changed, and no model is loaded.

    Args:
        settings: names the servers and folders.
        buckets: addresses (s3://bucket/…) of buckets that must be usable.
        nonce: goes into the name of a bucket that is surely not there.
        variables: names of the environment's variables, of which those that are no setting of ours are told.
    """
    looks: list[tuple[str, Callable[[], Finding | list[Finding]]]] = [
        ("python", _python),
        ("settings", lambda: list(_misspelt(variables))),
        ("home", lambda: _home(settings.home)),
        ("disk", lambda: _disk(settings.home)),
        ("model", lambda: _model(settings)),
        ("engine", _engine),
        ("gpu", gpus),
        ("gpu packages", packages),
        ("engine file", lambda: engines(settings)),
        ("redis", lambda: _redis(settings)),
        ("s3", lambda: _s3(settings, f"mattemill-doctor-{nonce}")),
        *(("s3", lambda url=url: _bucket(settings, url)) for url in buckets),
    ]
    with ThreadPoolExecutor(len(looks)) as pool:
        answers = pool.map(lambda look: _told(look[0], look[1]), looks)
    return [finding for found in answers for finding in found]


def _told(name: str, look: Callable[[], Finding | list[Finding]]) -> list[Finding]:
    try:
        found = look()
    except SetupError as error:
        return [Finding(name, "bad", str(error.args[0]), error.hint)]
    return found if isinstance(found, list) else [found]


def _python() -> Finding:
    return Finding("python", "ok", f"Mattemill {pipeline.__version__} on Python {platform.python_version()}.")


def _misspelt(variables: Iterable[str]) -> Iterable[Finding]:
    known = {f"MATTEMILL_{name}".upper() for name in Settings.model_fields}
    for name in sorted(name for name in variables if name.startswith("MATTEMILL_") and name not in known | _OF_OTHERS):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"is {near[0]} meant?" if near else "docs/tune.md has them all"
        yield Finding("settings", "note", f"{name} is set, and is no setting.", hint)


def _home(home: Path) -> Finding:
    place = _existing(home)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise SetupError(
            f"{home} cannot be written: {error.strerror}.", "set MATTEMILL_HOME to a folder that can be written"
        ) from error
    return Finding("home", "ok", f"{home} can be written.")


def _disk(home: Path) -> Finding:
    places = {"MATTEMILL_HOME": _existing(home), "TMPDIR": Path(tempfile.gettempdir())}
    free = {name: shutil.disk_usage(place).free >> 20 for name, place in places.items()}
    told = ", ".join(f"{_size(free[name])} free in {place}" for name, place in places.items()) + "."
    short = [name for name, megabytes in free.items() if megabytes < _FREE_MEGABYTES]
    if short:
        return Finding("disk", "bad", told, f"free some space, or set {' and '.join(short)} to a place that has it")
    return Finding("disk", "ok", told)


def _size(megabytes: int) -> str:
    return f"{megabytes >> 10} GB" if megabytes >= 10 << 10 else f"{megabytes} MB"


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there: a home is made on first use."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def _model(settings: Settings) -> Finding:
    path = ModelStore(settings.home).path(settings.model)
    return Finding("model", "ok", f"{settings.model} is installed and intact: {path}.")


def _engine() -> Finding:
    # In a process of its own, as the command line itself has no need of an engine's libraries.
    try:
        version = importlib.metadata.version(_ENGINE)
    except importlib.metadata.PackageNotFoundError as error:
        raise SetupError("ONNX Runtime is not installed.", "pip install onnxruntime") from error
    done = subprocess.run(
        [sys.executable, "-c", f"import {_ENGINE}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_ENGINE_SECONDS,
        check=False,
    )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        raise SetupError(
            f"ONNX Runtime {version} cannot be loaded: {why}.", "pip install --force-reinstall onnxruntime"
        )
    return Finding("engine", "ok", f"ONNX Runtime {version} (worker gpu --devices cpu).")


def _redis(settings: Settings) -> list[Finding]:
    client = connect(settings)
    try:
        check(client, settings)
        info = cast(dict[str, object], client.info())
        service = look_at_service(settings, client)
        led = client.exists(LEADER) == 1
    finally:
        client.close()
    told = ", ".join(
        f"{count} in {queue}" + (f" (the oldest for {service.ages[queue]:.0f} s)" if queue in service.ages else "")
        for queue, count in service.waiting.items()
    )
    queues = Finding("queues", "ok", f"Messages that wait: {told}.")
    return [*_server(info), queues, *service.unserved(), *_workers(list(service.workers), led)]


def _server(info: dict[str, object]) -> list[Finding]:
    told = f"{info.get('server_name', 'redis')} {info.get('valkey_version', info.get('redis_version', '?'))} answers."
    findings = [Finding("redis", "ok", told)]
    policy = info.get("maxmemory_policy")
    if policy not in ("noeviction", None):
        findings.append(
            Finding(
                "redis", "bad", f"Its maxmemory-policy is {policy}: it may drop the record of what is owed.",
                f"redis-cli CONFIG SET maxmemory-policy noeviction, {_FOR_GOOD}",
            )
        )  # fmt: skip
    used = share(cast("Mapping[str, int]", info))
    if used >= LISTING_LIMIT:
        waits = "sweeps and engines wait" if used >= FEEDING_LIMIT else "sweeps wait"
        findings.append(
            Finding("redis", "bad", f"It is {used:.0%} full: {waits}.", "raise maxmemory, or wait for running sweeps")
        )
    if info.get("maxmemory") == 0:
        findings.append(
            Finding(
                "redis",
                "note",
                "It has no maxmemory: nothing waits before its machine's memory is full.",
                f"redis-cli CONFIG SET maxmemory 2gb, or what its machine can spare, {_FOR_GOOD}",
            )
        )
    if info.get("aof_enabled") == 0:
        findings.append(
            Finding(
                "redis", "note", "It keeps no append-only file: a restart forgets its runs.",
                f"redis-cli CONFIG SET appendonly yes, {_FOR_GOOD}; or sweep again after a restart",
            )
        )  # fmt: skip
    return findings


def _workers(names: list[str], led: bool) -> list[Finding]:
    found = []
    for role, hint in (("gpu", "mattemill worker gpu (--devices cpu without a GPU)"), ("cpu", "mattemill worker cpu")):
        mine = [name for name in names if name.startswith(f"{role}-")]
        if mine:
            found.append(Finding("workers", "ok", f"{role}: {len(mine)} answer ({', '.join(mine[:5])})."))
        else:
            found.append(Finding("workers", "bad", f"{role}: none answers.", hint))
    if not led and any(name.startswith("cpu-") for name in names):
        found.append(Finding("workers", "bad", "Nobody keeps house: runs do not move.", "restart mattemill worker cpu"))
    return found


def _s3(settings: Settings, absent: str) -> Finding:
    """Ask for a bucket that is not there: only a server that takes the credentials says so."""
    server = settings.s3_endpoint_url or "AWS"
    with S3Store(settings, read_timeout=_S3_SECONDS) as store:
        try:
            store.check_bucket(absent)
        except SetupError as error:
            answer = answer_of(error.__cause__) if isinstance(error.__cause__, Exception) else None
            if answer is None or answer.status != 404:
                raise SetupError(str(error.args[0]).replace(f"the bucket {absent}", "a bucket"), error.hint) from error
    return Finding("s3", "ok", f"{server} answers and takes the credentials.")


def _bucket(settings: Settings, url: str) -> Finding:
    try:
        bucket = Location.parse(url).bucket
    except ValueError as error:
        raise SetupError(f"{error}.", "such as s3://photos/") from error
    with S3Store(settings, read_timeout=_S3_SECONDS) as store:
        store.check_bucket(bucket)
    return Finding("s3", "ok", f"The bucket {bucket} can be listed.")
