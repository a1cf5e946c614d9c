"""Hooks: a webhook or a command that is told the summary of a run, whatever goes wrong with it."""

import http.server
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.settings import Settings
from tests.command_line import run
from tests.processes import empty, photo, process
from workers.hook import HookError, tell

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


class Webhook:
    """A server that keeps what it was sent and answers with `answers`, then 200."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.paths.append(self.path)
                hook.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(hook.answers.pop(0) if hook.answers else 200)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/s3cret"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    webhook = Webhook()
    yield webhook
    webhook.close()


def test_a_webhook_is_tried_three_times(webhook: Webhook) -> None:
    pauses: list[float] = []
    webhook.answers = [500, 503]
    tell(webhook.url, b'{"run": 1}', pauses.append)
    assert webhook.bodies == [b'{"run": 1}'] * 3
    assert pauses == [1, 4]
    webhook.answers = [500] * 3
    with pytest.raises(HookError, match=r"127\.0\.0\.1 answered 500") as raised:
        tell(webhook.url, b"{}", pauses.append)
    assert "s3cret" not in str(raised.value)
    assert len(webhook.bodies) == 6


def test_a_webhook_that_redirects_or_is_not_there_has_failed(webhook: Webhook) -> None:
    webhook.answers = [302] * 3
    with pytest.raises(HookError, match="answered 302"):
        tell(webhook.url, b"{}", lambda _: None)
    assert webhook.paths == ["/s3cret"] * 3
    for url in ("http://127.0.0.1:1/s3cret", "http://no-such-host.invalid/s3cret", "file:///s3cret"):
        with pytest.raises(HookError, match="the webhook at") as raised:
            tell(url, b"{}", lambda _: None)
        assert "s3cret" not in str(raised.value)


def test_a_command_gets_the_summary_and_no_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "$(touch pwned); out.json"
    copy = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())"
    tell((sys.executable, "-c", copy, str(out)), b'{"run": 1}')
    assert out.read_bytes() == b'{"run": 1}'
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    with pytest.raises(HookError, match="status 3"):
        tell((sys.executable, "-c", "raise SystemExit(3)"), b"x" * (1 << 20))
    with pytest.raises(HookError, match="cannot be started: No such file"):
        tell(("/no/such/command",), b"{}")
    monkeypatch.setattr("workers.hook._COMMAND_TIMEOUT", 0.5)
    with pytest.raises(HookError, match=r"more than 0\.5 s"):
        tell((sys.executable, "-c", "import time; time.sleep(60)"), b"{}")


@pytest.mark.timeout(400)
def test_a_run_of_a_named_sweep_tells_its_hook_and_ends_well_without_it(
    environment: dict[str, str],
    settings: Settings,
    s3_bucket: str,
    s3_client: "S3Client",
    tmp_path: Path,
    webhook: Webhook,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for number in range(2):
        s3_client.put_object(Bucket=s3_bucket, Key=f"in/{number}.jpg", Body=photo(number))
    s3_client.put_object(Bucket=s3_bucket, Key="in/none.jpg", Body=b"no picture at all")
    table = f'source = "s3://{s3_bucket}/in/"\ncron = "0 0 1 1 *"\nto = "s3://{s3_bucket}/'
    file = tmp_path / "sweeps.toml"
    file.write_text(
        f'[sweeps.good]\n{table}good/"\nhook = "{webhook.url}"\n'
        f'[sweeps.bad]\n{table}bad/"\nhook = ["/no/such/command", "s3cret"]\n'
    )
    environment["MATTEMILL_SWEEPS"] = str(file)
    with (
        process(environment, "producer.commands", "worker", "gpu", "--devices", "fake:5"),
        process(environment, "producer.commands", "worker", "cpu", "--concurrency", "1"),
    ):
        for name in ("good", "bad"):
            done = run(environment, "sweeps", "run", name, "--wait", "--json", timeout=180)
            assert done.returncode == 1, done.stderr  # one picture is none
            assert json.loads(done.stdout)["done"] == 2
    (body,) = webhook.bodies
    told = json.loads(body)
    assert (told["sweep"], told["listed"], told["done"], told["failed"]) == ("good", 3, 2, 1)
    assert [(row["key"], row["code"]) for row in told["failures"]] == [("in/none.jpg", "not_an_image")]
    assert told["report"] == f"s3://{s3_bucket}/good/_mattemill/{told['run']}/report.html"
    logged = capfd.readouterr().err
    assert '"event": "hook_told"' in logged
    (failed,) = [json.loads(line) for line in logged.splitlines() if '"hook_failed"' in line]
    assert (failed["sweep"], failed["role"]) == ("bad", "finisher")
    assert "s3cret" not in logged
    empty(s3_client, s3_bucket)
