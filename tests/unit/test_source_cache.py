"""Photos kept on disk between two workers of one machine."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import pytest

from pipeline.ids import ETag, Key
from pipeline.settings import Settings, load_settings
from workers.source_cache import SourceCache

BUCKET, KEY, ETAG = "photos", Key("in/a 产品.jpg"), ETag("0123-4")
BODY = b"a photo" * 1000


def settings_in(home: Path, **options: object) -> Settings:
    return load_settings(home=home, s3_endpoint_url="http://127.0.0.1:1", **{"source_cache_bytes": 1 << 20, **options})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path / "home")


def kept(settings: Settings) -> list[Path]:
    return sorted(path for path in (settings.home / "source-cache").glob("*") if path.name != "lock")


def take(settings: Settings, key: Key = KEY, length: int = len(BODY)) -> bytes | None:
    return SourceCache(settings).take(BUCKET, key, ETAG, length)


def test_a_photo_is_taken_once(settings: Settings) -> None:
    with SourceCache(settings).open_for_taking():
        SourceCache(settings).offer(BUCKET, KEY, ETAG, BODY)
        assert take(settings) == BODY
        assert take(settings) is None
        assert kept(settings) == []


@pytest.mark.parametrize(
    ("bucket", "key", "etag", "length"),
    [
        ("other", KEY, ETAG, len(BODY)),
        (BUCKET, Key("in/b.jpg"), ETAG, len(BODY)),
        (BUCKET, KEY, ETag("5678"), len(BODY)),
        (BUCKET, KEY, ETAG, len(BODY) + 1),
    ],
)
def test_another_photo_is_not_taken_for_it(settings: Settings, bucket: str, key: Key, etag: ETag, length: int) -> None:
    with SourceCache(settings).open_for_taking():
        SourceCache(settings).offer(BUCKET, KEY, ETAG, BODY)
        assert SourceCache(settings).take(bucket, key, etag, length) is None


def test_servers_are_told_apart(settings: Settings) -> None:
    with SourceCache(settings).open_for_taking():
        SourceCache(settings).offer(BUCKET, KEY, ETAG, BODY)
        assert take(settings.model_copy(update={"s3_endpoint_url": "http://127.0.0.1:2"})) is None


def test_only_its_user_can_read_it(settings: Settings) -> None:
    with SourceCache(settings).open_for_taking():
        SourceCache(settings).offer(BUCKET, KEY, ETAG, BODY)
        (copy,) = kept(settings)
        assert copy.stat().st_mode & 0o077 == 0
        assert copy.parent.stat().st_mode & 0o077 == 0


def test_nothing_is_kept_where_nobody_takes(settings: Settings) -> None:
    SourceCache(settings).offer(BUCKET, KEY, ETAG, BODY)
    assert kept(settings) == []
    with SourceCache(settings).open_for_taking():
        pass
    SourceCache(settings).offer(BUCKET, KEY, ETAG, BODY)
    assert kept(settings) == []


def test_nothing_is_kept_for_a_worker_that_was_killed(settings: Settings, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from pipeline.settings import load_settings\n"
        "from workers.source_cache import SourceCache\n"
        "with SourceCache(load_settings(home=pathlib.Path(sys.argv[1]))).open_for_taking():\n"
        "    print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(settings.home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"open\n"
        SourceCache(settings).offer(BUCKET, KEY, ETAG, BODY)
        assert len(kept(settings)) == 1
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        SourceCache(settings).offer(BUCKET, Key("in/b.jpg"), ETAG, BODY)
        assert len(kept(settings)) == 1
    with SourceCache(settings).open_for_taking():
        assert kept(settings) == []


def test_loaders_do_not_take_each_other_for_one_who_takes(settings: Settings) -> None:
    with SourceCache(settings).open_for_taking():
        pass  # its lock's file stays
    loaders = [
        threading.Thread(
            target=lambda n=n: [SourceCache(settings).offer(BUCKET, f"{n}", ETAG, BODY) for _ in range(500)]
        )
        for n in range(4)
    ]
    for loader in loaders:
        loader.start()
    for loader in loaders:
        loader.join()
    assert kept(settings) == []


def test_files_of_others_are_left_alone(settings: Settings) -> None:
    folder = settings.home / "source-cache"
    folder.mkdir(parents=True)
    (folder / "holiday.jpg").touch()
    os.utime(folder / "holiday.jpg", (0, 0))
    with SourceCache(settings).open_for_taking():
        SourceCache(settings).offer(BUCKET, KEY, ETAG, BODY)
    assert kept(settings) == [folder / "holiday.jpg"]


def test_the_last_one_to_leave_deletes_what_nobody_took(settings: Settings) -> None:
    with SourceCache(settings).open_for_taking():
        with SourceCache(settings).open_for_taking():
            SourceCache(settings).offer(BUCKET, KEY, ETAG, BODY)
        assert len(kept(settings)) == 1
    assert kept(settings) == []


def test_no_more_than_allowed_is_kept(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "home", source_cache_bytes=2 * len(BODY))
    loader = SourceCache(settings)
    with SourceCache(settings).open_for_taking():
        for n in range(5):
            loader.offer(BUCKET, f"in/{n}.jpg", ETAG, BODY)
        assert len(kept(settings)) == 2
        SourceCache(settings).offer(BUCKET, "in/of another loader.jpg", ETAG, BODY)
        assert len(kept(settings)) == 2


def test_a_disk_that_is_nearly_full_is_left_alone(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1 << 40, 1 << 40, settings.source_cache_bytes - 1))
    with SourceCache(settings).open_for_taking():
        SourceCache(settings).offer(BUCKET, KEY, ETAG, BODY)
        assert kept(settings) == []


@pytest.mark.parametrize("place", ["pathlib.Path.rename", "shutil.disk_usage", "os.fdopen"])
def test_a_disk_that_is_full_or_fails_is_no_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with SourceCache(settings).open_for_taking():
        monkeypatch.setattr(place, broken)
        SourceCache(settings).offer(BUCKET, KEY, ETAG, BODY)
        assert kept(settings) == []


def test_copies_that_nobody_took_do_not_stay(settings: Settings) -> None:
    with SourceCache(settings).open_for_taking():
        SourceCache(settings).offer(BUCKET, KEY, ETAG, BODY)
        (copy,) = kept(settings)
        os.utime(copy, (time.time() - 1000, time.time() - 1000))
        SourceCache(settings).offer(BUCKET, Key("in/b.jpg"), ETAG, BODY)
        assert copy not in kept(settings)
        assert len(kept(settings)) == 1


def test_a_home_that_cannot_be_written_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "home").touch()
    settings = settings_in(tmp_path / "home")
    with SourceCache(settings).open_for_taking():
        SourceCache(settings).offer(BUCKET, KEY, ETAG, BODY)
        assert take(settings) is None
    assert "no_source_cache" in capsys.readouterr().out


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "home", source_cache_bytes=0)
    with SourceCache(settings).open_for_taking():
        SourceCache(settings).offer(BUCKET, KEY, ETAG, BODY)
        assert take(settings) is None
    assert not settings.home.exists()
