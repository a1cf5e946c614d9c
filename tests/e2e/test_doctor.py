"""`mattemill doctor`: a verdict a line, and what mends it."""

import contextlib
import json
import os
import pty
import re
import subprocess
from pathlib import Path

import redis

from pipeline.settings import Settings
from tests.command_line import COMMAND, run
from tests.conftest import WaitUntil
from tests.processes import process
from workers.local.valkey import Valkey


def verdicts(environment: dict[str, str], *arguments: str) -> tuple[int, dict[str, list[tuple[str, str]]]]:
    """Exit code, and for each check its states with what was told and the hint."""
    done = run(environment, "doctor", "--json", *arguments)
    assert done.stderr == ""
    found: dict[str, list[tuple[str, str]]] = {}
    for check in json.loads(done.stdout)["checks"]:
        found.setdefault(check["name"], []).append((check["state"], f"{check['told']} {check['hint']}"))
    return done.returncode, found


def test_nothing_is_there_and_each_line_says_what_to_do(alone: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status, found = verdicts(
        alone
        | {"MATTEMILL_HOME": str(tmp_path / "file" / "home"), "MATTEMILL_REDIS_URL": "redis://127.0.0.1:1/0"}
        | {"MATTEMILL_S3_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    )
    assert status == 2
    assert found["python"][0][0] == "ok"
    assert "ONNX Runtime" in found["engine"][0][1]
    for name, expected in (
        ("home", "MATTEMILL_HOME"),
        ("model", "mattemill model fetch u2netp"),
        ("redis", "mattemill up"),
        ("s3", "MATTEMILL_S3_ENDPOINT_URL"),
    ):
        assert found[name][0][0] == "bad", found
        assert expected in found[name][0][1]


def test_people_get_a_line_for_each_check_and_a_verdict(alone: dict[str, str]) -> None:
    gone = {"MATTEMILL_REDIS_URL": "redis://127.0.0.1:1/0", "MATTEMILL_S3_ENDPOINT_URL": "http://127.0.0.1:1"}
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    done = run(alone | gone | keys, "doctor")
    *lines, verdict = done.stdout.splitlines()
    assert done.returncode == 2
    assert verdict == "Bad: redis, s3. Their lines end with what mends them."
    assert all(line.startswith(("ok    ", "note  ", "BAD   ")) for line in lines)
    assert all("Hint: " in line for line in lines if not line.startswith("ok"))
    assert "\x1b" not in done.stdout  # colours are for terminals


def test_a_misspelt_variable_is_told(alone: dict[str, str]) -> None:
    _, found = verdicts(alone | {"MATTEMILL_REDIS_ULR": "redis://away:6379/0", "MATTEMILL_LOADERS": "2"})
    assert found["settings"] == [
        ("note", "MATTEMILL_REDIS_ULR is set, and is no setting. is MATTEMILL_REDIS_URL meant?")
    ]


def test_on_a_terminal_there_are_colours_and_what_mends_stands_alone_to_be_copied(alone: dict[str, str]) -> None:
    gone = {"MATTEMILL_REDIS_URL": "redis://127.0.0.1:1/0", "MATTEMILL_S3_ENDPOINT_URL": "http://127.0.0.1:1"}
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "COLUMNS": "80", "TERM": "xterm-256color"}
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, "doctor"], env=alone | gone | keys, stdout=theirs) as child:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # Linux's way to say that the other side is closed
            while piece := os.read(ours, 65536):
                said += piece
    os.close(ours)
    assert child.returncode == 2
    assert "\x1b[31mBAD" in said.decode()
    lines = re.sub("\x1b\\[[0-9;]*m", "", said.decode()).splitlines()
    indent = " " * 20
    assert f"{indent}-> set MATTEMILL_REDIS_URL; `mattemill up` starts one and prints the lines to paste" in lines
    assert [line for line in lines[:-1] if len(line) > 80 and not line.startswith(f"{indent}-> ")] == []
    assert lines[-1].startswith("Bad: redis, s3.")


def test_all_is_well_when_servers_and_workers_are_there(
    environment: dict[str, str], fetched_home: Path, settings: Settings, s3_bucket: str, wait_until: WaitUntil
) -> None:
    environment |= {"MATTEMILL_HOME": str(fetched_home)}
    status, found = verdicts(environment)
    assert status == 2
    assert [state for state, _ in found["workers"]] == ["bad", "bad"]
    assert "mattemill worker gpu" in found["workers"][0][1]
    assert found["s3"] == [("ok", f"{settings.s3_endpoint_url} answers and takes the credentials. ")]
    command = ("producer.commands", "worker")
    with process(environment, *command, "gpu", "--devices", "fake:1"), process(environment, *command, "cpu"):
        wait_until(lambda: verdicts(environment)[0] == 0, 60)
        status, found = verdicts(environment, f"s3://{s3_bucket}/in/", "s3://no-such-bucket-here/")
    assert [state for state, _ in found["workers"]] == ["ok", "ok"]
    assert [state for state, _ in found["s3"]] == ["ok", "ok", "bad"]
    assert found["queues"][0][0] == "ok"
    assert status == 2


def test_each_command_that_mends_redis_ends_its_line(environment: dict[str, str], tmp_path: Path) -> None:
    with (
        Valkey(tmp_path, config={"maxmemory-policy": "allkeys-lru"}) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        there = environment | {"MATTEMILL_REDIS_URL": server.url}
        _, found = verdicts(there)
        assert [state for state, _ in found["redis"]] == ["ok", "bad", "note", "note"]
        for _, text in found["redis"][1:]:
            command = re.search(r"redis-cli (CONFIG SET [\w-]+ \w+),", text)
            assert command is not None, text
            client.execute_command(*command[1].split())
        _, found = verdicts(there)
        assert [state for state, _ in found["redis"]] == ["ok"]


def test_what_would_lose_the_ledger_is_bad(environment: dict[str, str], settings: Settings) -> None:
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", str(int(client.info("memory")["used_memory"] * 1.15)))
        try:
            _, found = verdicts(environment | {"AWS_SECRET_ACCESS_KEY": "wrong"})
        finally:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", "0")
    assert any(state == "bad" and "raise maxmemory" in text for state, text in found["redis"])
    assert any(state == "note" and "append-only" in text for state, text in found["redis"])
    assert ("bad", "noeviction") in [(state, "noeviction" * ("noeviction" in text)) for state, text in found["redis"]]
    assert found["s3"][0][0] == "bad"
    assert "AWS_SECRET_ACCESS_KEY" in found["s3"][0][1]
    assert "mattemill model fetch u2netp" in found["model"][0][1]
