"""What docker/ promises: closed, small, stoppable, healthy by a check that says something, in step with the code."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pipeline.settings import Settings
from tests.conftest import ROOT
from tests.containers import COMPOSE, DOCKER, KUBERNETES, VALUES, compose, documents, filled, image_environment, seconds
from workers import supervisor

OURS = ("model", "worker-gpu", "worker-gpu-role-on-cpu", "worker-cpu", "beat", "flower", "web", "cli")
WORKERS = ("worker-gpu", "worker-gpu-role-on-cpu", "worker-cpu")
SHOWN = (*WORKERS, "beat", "web")
LASTING = ("valkey", "seaweedfs", *WORKERS, "beat", "flower", "web", "prometheus", "grafana")
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))


@pytest.fixture(scope="module")
def services() -> Any:
    return compose(VALUES)["services"]


@pytest.mark.parametrize("service", OURS)
def test_our_containers_can_change_nothing_but_their_volume(services: Any, service: str) -> None:
    ours = services[service]
    assert ours["read_only"] is True
    assert ours["init"] is True
    assert ours["cap_drop"] == ["ALL"]
    assert ours["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in ours
    assert "user" not in ours  # the image's own, which is not root


THEIRS = {  # their volume, what else of them is written, and which user of the image is not root
    "valkey": ("/data", ["/tmp"], "valkey"),
    "seaweedfs": ("/data", ["/tmp"], "1000:1000"),
    "prometheus": ("/prometheus", [], "65534:65534"),
    "grafana": ("/var/lib/grafana", ["/tmp"], "472:0"),
}


def test_the_containers_of_others_are_as_closed_as_ours(services: Any) -> None:
    assert set(services) == {*OURS, *THEIRS}
    for name, (volume, tmpfs, user) in THEIRS.items():
        service = services[name]
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"] == user
        assert service.get("tmpfs", []) == tmpfs
        written = [mount.split(":")[1] for mount in service["volumes"] if not mount.endswith(":ro")]
        assert written == [volume]
        assert not {"privileged", "cap_add", "devices", "pid", "ipc", "network_mode"} & set(service)


def test_nothing_is_copied_into_a_container_that_is_read_only() -> None:
    """Compose refuses to start one with a config or a secret that is no file."""
    file = compose(VALUES)
    for name, service in file["services"].items():
        assert not service.get("configs"), name
        assert not service.get("secrets"), name
    assert "configs" not in file
    assert "secrets" not in file


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_run_without_root_and_end_in_order(path: Path) -> None:
    last = path.read_text().rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert re.search(r"^STOPSIGNAL SIGTERM$", last, re.MULTILINE)
    assert "workers.health" in last
    assert "gcc" not in last
    assert "build-essential" not in last


def warming(path: Path) -> list[str]:
    """The command by which an image compiles what a worker would compile at its start."""
    after = path.read_text().rpartition("\nUSER ")[2].partition("\nVOLUME ")[0]  # what comes later is not kept
    (command,) = re.findall(r"^RUN (\[.*\])$", after, re.MULTILINE)
    words = json.loads(command)
    assert words[0] == "python"
    return [sys.executable, *words[1:]]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_compiled_lies_in_the_volume_where_a_worker_may_write(path: Path) -> None:
    environment = image_environment(path)
    (volume,) = re.findall(r"^VOLUME (.*)$", path.read_text(), re.MULTILINE)
    assert environment["MATTEMILL_HOME"] == volume
    caches = {name: place for name, place in environment.items() if "CACHE" in name and place.startswith("/")}
    assert "NUMBA_CACHE_DIR" in caches
    assert all(Path(place).is_relative_to(volume) for place in caches.values())


def test_an_image_has_compiled_all_that_its_workers_need(tmp_path: Path) -> None:
    commands = [warming(path) for path in DOCKERFILES]
    environment = {"NUMBA_CACHE_DIR": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}

    def compiled() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")}

    subprocess.run(commands[0], env=environment, timeout=150, check=True)
    built = compiled()
    assert built
    for command in (*commands, [sys.executable, "-c", "import workers.cpu; workers.cpu.warm_up()"]):
        subprocess.run(command, env=environment, timeout=100, check=True)
        assert compiled() == built


@pytest.mark.parametrize("service", OURS)
def test_a_stop_lasts_longer_than_the_supervisor_waits(services: Any, service: str) -> None:
    assert services[service]["stop_signal"] == "SIGTERM"
    assert seconds(services[service]["stop_grace_period"]) >= supervisor._GRACE + 20


@pytest.mark.parametrize("service", LASTING)
def test_what_lasts_has_a_health_check_and_comes_back(services: Any, service: str) -> None:
    assert services[service]["healthcheck"]["test"]
    assert services[service]["restart"] == "unless-stopped"


def test_only_pages_with_a_password_are_published_and_only_here(services: Any) -> None:
    published = {name: service["ports"] for name, service in services.items() if service.get("ports")}
    assert published == {
        "flower": ["127.0.0.1:5555:5555"], "web": ["127.0.0.1:8080:8080"], "grafana": ["127.0.0.1:3000:3000"],
    }  # fmt: skip
    assert services["web"]["environment"]["MATTEMILL_WEB_PASSWORD"] == "secret"
    assert "--no-password" not in services["web"]["command"]
    assert services["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"] == "secret"
    assert services["flower"]["environment"]["FLOWER_BASIC_AUTH"] == "mattemill:secret"
    assert "MATTEMILL_S3_ENDPOINT_URL" not in services["flower"]["environment"]


def test_servers_are_reached_by_those_that_need_them_only(services: Any) -> None:
    networks = compose(VALUES)["networks"]
    assert networks["broker"]["internal"] is True
    assert networks["store"]["internal"] is True
    assert services["valkey"]["networks"] == ["broker"]
    assert services["seaweedfs"]["networks"] == ["store"]
    assert "store" not in services["flower"]["networks"]


def test_prometheus_reads_every_process_and_reaches_nothing_else(services: Any) -> None:
    (document,) = documents(DOCKER / "monitoring" / "prometheus.yml")
    (asked,) = document["scrape_configs"][0]["dns_sd_configs"]
    assert set(asked["names"]) == set(SHOWN)
    for name in SHOWN:
        assert services[name]["environment"]["MATTEMILL_METRICS_PORT"] == str(asked["port"])
        assert "monitoring" in services[name]["networks"]
    assert services["prometheus"]["networks"] == ["monitoring"]
    assert compose(VALUES)["networks"]["monitoring"]["internal"] is True
    for name in ("prometheus", "grafana"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        mounted = [volume.split(":")[0] for volume in services[name]["volumes"] if volume.startswith("./")]
        assert [path for path in mounted if not (DOCKER / path).exists()] == []
    assert all(document["rule_files"][0] in volume for volume in services["prometheus"]["volumes"] if "rules" in volume)


def test_no_secret_is_in_a_command(services: Any) -> None:
    assert not [name for name, service in services.items() if "secret" in json.dumps(service.get("command", []))]


def test_no_password_has_a_default() -> None:
    (document,) = documents(COMPOSE)
    for name in VALUES:
        with pytest.raises(KeyError, match=name):
            filled(document, {other: "x" for other in VALUES if other != name})


def test_an_s3_server_that_is_there_takes_two_variables() -> None:
    file = compose(VALUES | {"MATTEMILL_S3_ENDPOINT_URL": "https://minio.example:9000"})["services"]
    assert file["worker-cpu"]["environment"]["MATTEMILL_S3_ENDPOINT_URL"] == "https://minio.example:9000"
    assert file["seaweedfs"]["profiles"] == ["s3"]  # COMPOSE_PROFILES is the other one
    waits = [
        service["depends_on"]["seaweedfs"] for service in file.values() if "seaweedfs" in service.get("depends_on", {})
    ]
    assert waits
    assert all(wait["required"] is False for wait in waits)


@pytest.mark.parametrize("path", [COMPOSE, DOCKER / "example.env", *KUBERNETES], ids=lambda path: path.name)
def test_every_variable_is_one_that_the_settings_have(path: Path) -> None:
    known = {f"MATTEMILL_{name}".upper() for name in Settings.model_fields} | {"MATTEMILL_REDIS_PASSWORD"}
    assert set(re.findall(r"\bMATTEMILL_[A-Z0-9_]+", path.read_text())) <= known


def test_tags_are_pinned(services: Any) -> None:
    images = [service["image"] for service in services.values()]
    images += [
        line.split("=", 1)[1]
        for path in DOCKERFILES
        for line in path.read_text().splitlines()
        if line.startswith("ARG PYTHON=") or line.startswith("ARG CUDA=")
    ]
    for image in images:
        assert re.search(r":[\w.-]+$", image), image
        assert not image.endswith(":latest")


def test_the_context_holds_what_is_installed_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {f"!{name.rstrip('*')}/" for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    taken = {line for line in lines if line.startswith("!")}
    assert packages <= taken
    assert taken - packages == {"!LICENSE", "!README.md", "!pyproject.toml", "!requirements.lock", "!celeryconfig.py"}


def test_docker_is_no_package() -> None:
    assert not (DOCKER / "__init__.py").exists()  # it would shadow the docker SDK


def installed(name: str) -> str:
    """A program of the extra `dev`, which has it for Linux; it lies beside Python."""
    program = shutil.which(name, path=sysconfig.get_path("scripts"))
    if program is None:
        assert sys.platform != "linux", f"{name} belongs to the extra `dev`"
        pytest.skip(f"{name} has no wheel here")
    return program


@pytest.mark.parametrize("profiles", ["cpu,s3", "gpu,s3,beat", "cpu", "gpu", "cpu,s3,cli", "gpu,monitoring"])
def test_compose_takes_the_file(profiles: str, tmp_path: Path) -> None:
    program = installed("docker-compose")
    done = subprocess.run(
        [program, "-f", str(COMPOSE), "config", "--quiet"],
        env=VALUES | {"COMPOSE_PROFILES": profiles, "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    program = installed("hadolint")
    done = subprocess.run([program, str(path)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
