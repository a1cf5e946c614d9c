"""The demo: embedded servers, real workers, the same sweep as a user's, a report at the end."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import click

from engine_build.fetch import fetch
from pipeline.errors import Code, ItemError, SetupError
from pipeline.ids import Key
from pipeline.ledger import Ledger, connect
from pipeline.runs import is_image_name
from pipeline.s3 import S3Store
from pipeline.settings import Settings, load_settings
from producer.api import Producer
from producer.files import check_folder, write_file
from producer.run import Run
from producer.samples import expected_failures, samples
from producer.summary import Summary
from workers.local.process import Child
from workers.local.stack import LocalStack

SOURCE, TARGET, MODEL = "photos", "cutouts", "u2netp"
_HURRY = 2.0
"""Seconds that workers get to end when their work is no longer wanted."""
_PATIENCE = 10.0
"""Seconds that workers get to end what they work on."""

_Follow = Callable[[Run, Callable[[], None]], Summary]


def run_demo(photos: Path | None, out: Path, follow: _Follow, show: Callable[[Summary], None]) -> int:
    """Run it; 0 when the outcome is the expected one, 1 otherwise.

    Args:
        photos: a folder of the user's own pictures; None takes the sample photos.
        out: where cutouts and report go.
        follow: waits for a run and shows its progress; calls now and then what it is given.
        show: prints the closing table.

    Raises:
        SetupError: when something cannot be set up.
    """
    bodies, expected = (own_photos(photos, out), {}) if photos is not None else _samples()
    _end_in_order()
    check_folder(out)
    fetch(MODEL, load_settings().home, click.echo)
    with LocalStack() as stack, environment(stack.environment()):
        settings = load_settings(model=MODEL)
        click.echo("Valkey and SeaweedFS run on this machine.")
        with S3Store(settings) as store:
            for bucket in (SOURCE, TARGET):
                store.create_bucket(bucket)
            put_photos(store, bodies)
            with local_workers(out / "workers.log", stack.directory) as worker:
                run = Producer(settings, store).sweep(f"s3://{SOURCE}/", f"s3://{TARGET}/")
                summary = follow(run, lambda: check_alive([worker]))
            _save(run, settings, store, out)
    show(summary)
    click.echo(f"Cutouts: {out / 'cutouts'}\nReport:  {out / 'report.html'}")
    failed = {row["key"]: row["code"] for row in summary.failures}
    if failed == expected:
        if expected:
            click.echo("The files in bad/ are broken on purpose: they must fail, and harm no other.")
        return 0
    if expected:
        click.echo(f"Not as expected: only {', '.join(sorted(expected))} should have failed.", err=True)
    return 1


def check_alive(children: Iterable[Child], kept: bool = True) -> None:
    """Raise SetupError, with what it said last and where its log is, when one of these has ended.

    Args:
        children: the processes.
        kept: whether their logs outlive this process.
    """
    for child in children:
        if child.poll() is not None:
            # All its processes write there; what is for a person is no JSON.
            said = [line for line in child.output().splitlines() if not line.startswith("{")]
            last = said[-1].removeprefix("mattemill: ") if said else "it said nothing."
            sentence, _, hint = last.partition(" Hint: ")
            log = f"its log is {child.log}" if kept else "mattemill up --directory DIR keeps the logs"
            raise SetupError(f"{child.name} has ended: {sentence}", f"{hint}; {log}" if hint else log)


def _samples() -> tuple[Iterator[tuple[str, bytes]], Mapping[str, Code]]:
    return ((sample.name, sample.body) for sample in samples()), expected_failures()


def own_photos(photos: Path, written: Path | None) -> Iterator[tuple[str, bytes]]:
    """Key and bytes of every picture in a folder, read one by one.

    Args:
        photos: the folder, subfolders too.
        written: what lies here is left out: `--photos .` must not take the cutouts of the last demo for photos.

    Raises:
        SetupError: when there are none.
    """
    files = [
        path
        for path in sorted(photos.rglob("*"))
        if path.is_file()
        and is_image_name(Key(path.name))
        and not (written is not None and path.resolve().is_relative_to(written.resolve()))
    ]
    if not files:
        raise SetupError(f"There are no pictures in {photos}.", "name a folder with JPEG, PNG, WebP … files")
    return ((_key(path.relative_to(photos)), path.read_bytes()) for path in files)


def _key(path: Path) -> str:
    """A file's name as an S3 key, which must be UTF-8; a file's name can be any bytes."""
    return os.fsencode(path.as_posix()).decode(errors="backslashreplace")


def put_photos(store: S3Store, bodies: Iterable[tuple[str, bytes]]) -> None:
    """Put photos into the local bucket of sources.

    Raises:
        SetupError: when one cannot be stored.
    """
    for name, body in bodies:
        try:
            store.put(SOURCE, Key(name), body, content_type="application/octet-stream")
        except ItemError as error:
            raise SetupError(
                f"{name!r} cannot be stored in the local S3: {error.reason}.",
                "free some space, or set TMPDIR to a directory that has it",
            ) from error


def _end_in_order() -> None:
    """Make a polite end by others (TERM, a closed terminal) unwind as Ctrl-C does, so that nothing stays behind."""

    def unwind(number: int, _: object) -> None:
        sys.exit(128 + number)

    for name in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(name) == signal.SIG_DFL:  # nohup has it ignored
            signal.signal(name, unwind)


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """These variables for this process and its children, for as long as the servers run."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def local_workers(log: Path, temporary: Path, devices: str = "cpu") -> Iterator[Child]:
    """`mattemill worker all`, told to end, and ended, with the context."""
    command = [sys.executable, "-m", "producer.commands", "worker", "all", "--devices", devices]
    # What a worker that is killed leaves there goes with the servers' folder.
    with Child(command, name="the worker", log=log, env=os.environ | {"TMPDIR": str(temporary)}) as child:
        grace = _HURRY
        try:
            yield child
            grace = _PATIENCE
        finally:
            child.stop(grace)


def _save(run: Run, settings: Settings, store: S3Store, out: Path) -> None:
    """Keep what would go with the servers: the cutouts and the report."""
    client = connect(settings)
    place = Ledger(client, settings).spec(run.id).reports
    client.close()
    wanted = [(TARGET, str(row["output"]), Path("cutouts")) for row in run.results() if row["outcome"] == "done"]
    files = [(bucket, key, folder / key) for bucket, key, folder in wanted]
    files += [
        (place.bucket, place.key + name, Path(name)) for name in ("report.html", "manifest.jsonl", "summary.json")
    ]
    for bucket, key, path in files:
        target = (out / path).resolve()
        if not target.is_relative_to(out.resolve()):
            continue
        write_file(target, store.get(bucket, Key(key), max_bytes=1 << 31).body)
