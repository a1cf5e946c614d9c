"""`mattemill up`: servers, workers and Flower for other terminals, as long as it runs."""

import base64
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.command_line import COMMAND, MARK, left_behind, refused, run
from tests.conftest import WaitUntil


@pytest.mark.timeout(180)
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_up_prints_what_to_paste_and_leaves_nothing_behind(
    ending: signal.Signals,
    alone: dict[str, str],
    photos: Path,
    short_tmp: Path,
    tmp_path: Path,
    wait_until: WaitUntil,
) -> None:
    printed, said = tmp_path / "printed", tmp_path / "said"
    port = _two_ports()
    with printed.open("wb") as output, said.open("wb") as errors:
        parent = subprocess.Popen(
            [*COMMAND, "up", "--devices", "fake:1", "--photos", str(photos)],
            env=alone | {"MATTEMILL_METRICS_PORT": str(port)},
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
    try:
        wait_until(lambda: parent.poll() is not None or "Ctrl-C" in printed.read_text(), 120)
        text = printed.read_text()
        assert all(re.match(r"export [A-Z_3]+=|# ", line) for line in text.splitlines()), text
        # Every word of it can be pasted into a shell, where the next command then finds everything.
        pasted = subprocess.run(
            ["bash", "-c", f"{text}\n{sys.executable} -m producer.commands doctor --json s3://photos/ s3://cutouts/"],
            env=alone, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert pasted.returncode == 0, pasted.stdout + pasted.stderr
        workers = [check["told"] for check in json.loads(pasted.stdout)["checks"] if check["name"] == "workers"]
        assert [told.split(":")[0] for told in workers] == ["gpu", "cpu"]

        sweep = "-m producer.commands sweep s3://photos/ --to s3://cutouts/ --dry-run"
        swept = subprocess.run(
            ["bash", "-c", f"{text}\n{sys.executable} {sweep}"],
            env=alone, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert swept.stdout.startswith("listed 2 = to be made 2 "), swept.stdout + swept.stderr
        secrets = re.findall(r"AWS_SECRET_ACCESS_KEY=(\S+)|redis://:([^@]+)@|password (\S+)", text)
        assert len(secrets) == 4
        lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
        assert not [line for line in lines for secret in secrets if max(secret) in line and "bash -c" not in line]
        _look_at_flower(text)
        for each in (port, port + 1):  # the workers have a page, and so has the live page
            with urllib.request.urlopen(f"http://127.0.0.1:{each}/metrics", timeout=10) as answer:
                assert b"mattemill_info" in answer.read()
        assert "Workers" in _page_behind_a_password(text, "Live page", "")
    finally:
        parent.send_signal(ending)
        status = parent.wait(60)
    assert status == (0 if ending == signal.SIGINT else -ending), said.read_text()
    assert "Traceback" not in said.read_text()
    assert ending == signal.SIGKILL or said.read_text().endswith("All of it ends.\n")
    wait_until(lambda: left_behind(alone[MARK], short_tmp) == [], 30)
    assert ending == signal.SIGKILL or list(short_tmp.iterdir()) == []


def _two_ports() -> int:
    """A free port whose successor is free too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def _page_behind_a_password(text: str, name: str, path: str) -> str:
    found = re.search(rf"{name}: (\S+) user (\S+), password (\S+)", text)
    assert found
    url, user, password = found.groups()
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError) as refusal:
        direct.open(f"{url}{path}", timeout=20)
    assert refusal.value.code == 401
    refusal.value.close()
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    request = urllib.request.Request(f"{url}{path}", headers={"Authorization": f"Basic {login}"})
    with direct.open(request, timeout=20) as answer:
        return str(answer.read().decode())


def _look_at_flower(text: str) -> None:
    page = _page_behind_a_password(text, "Flower", "broker")
    assert "matte.u2netp.320x320" in page  # it was started when the workers were there to ask
    assert "encode" in page


def test_ctrl_c_before_it_is_ready_ends_it_at_once(
    alone: dict[str, str], tmp_path: Path, wait_until: WaitUntil
) -> None:
    printed, said = tmp_path / "printed", tmp_path / "said"
    with printed.open("wb") as output, said.open("wb") as errors:
        parent = subprocess.Popen([*COMMAND, "up", "--devices", "fake:1"], env=alone, stdout=output, stderr=errors)
    wait_until(lambda: "the workers start" in said.read_text(), 60)
    parent.send_signal(signal.SIGINT)
    assert parent.wait(60) == 0, said.read_text()
    assert printed.read_text() == ""  # no address of what has ended
    assert left_behind(alone[MARK]) == []


def test_a_worker_that_ends_is_quoted_and_no_file_is_named_that_is_gone(alone: dict[str, str], tmp_path: Path) -> None:
    wrong = alone | {"MATTEMILL_MODEL": "no-such-model"}
    ended = run(wrong, "up", timeout=120)
    refused(ended, "the worker has ended: There is no model named 'no-such-model'", "up --directory")
    kept = run(wrong, "up", "--directory", str(tmp_path / "data"), timeout=120)
    assert ended.stderr.count("Hint:") == 1
    refused(kept, "no-such-model", f"its log is {tmp_path}/data/workers.log")
    assert "no-such-model" in (tmp_path / "data" / "workers.log").read_text()
    refused(run(alone, "up", "--devices", "nonsense"), "mattemill worker gpu --devices cpu")


def test_flower_needs_a_password(alone: dict[str, str]) -> None:
    refused(run(alone, "flower"), "no password", "FLOWER_BASIC_AUTH")
    refused(run(alone | {"FLOWER_BASIC_AUTH": "mattemill:"}, "flower"), "no password")


@pytest.mark.parametrize("option", ["--flower-port", "--web-port"])
def test_a_port_that_is_taken_is_named(option: str, alone: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused(run(alone, "up", option, port), f"Port {port} is taken", option)
