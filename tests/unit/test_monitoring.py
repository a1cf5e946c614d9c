"""What docker/monitoring asks for is what workers show, and each alert has its entry in the runbook."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Metric

from model.engines.cuda.gpus import GpuLoad
from pipeline.errors import SetupError
from pipeline.settings import Settings
from producer.metrics import BeatMetrics, WebMetrics
from tests.conftest import ROOT
from tests.containers import DOCKER, documents
from workers.gpu_gauges import GpuGauges
from workers.house_gauges import HouseGauges
from workers.metrics import EncodeMetrics, MatteMetrics

MONITORING = DOCKER / "monitoring"
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
_WORDS = {"by", "on", "and", "or", "unless", "without", "ignoring", "group_left", "bool", "offset"}


def shown() -> dict[str, set[str]]:
    """The name of every series that a worker shows, with its labels."""
    registry = CollectorRegistry()
    metrics = MatteMetrics("cpu", 8, registry)
    metrics.worked_off("encode")
    metrics.watches("workers.cpu")
    BeatMetrics(["night"], registry)
    WebMetrics(registry)
    encode = CollectorRegistry()
    EncodeMetrics(encode)
    families: list[Metric] = [
        *encode.collect(),
        *registry.collect(),  # these have labels
        *HouseGauges(Settings()).describe(),
        *GpuGauges([]).describe(),
    ]
    labels = {family.name: {label for sample in family.samples for label in sample.labels} for family in families}
    for family in [*HouseGauges(Settings()).describe(), *GpuGauges([]).describe()]:
        labels[family.name] = set(family._labelnames)  # type: ignore[attr-defined]
    return {
        family.name + suffix: labels[family.name] - {"le"} for family in families for suffix in _SUFFIXES[family.type]
    }


def rules() -> list[dict[str, Any]]:
    (document,) = documents(MONITORING / "rules.yml")
    return [rule for group in document["groups"] for rule in group["rules"]]


def queries() -> dict[str, str]:
    board = json.loads((MONITORING / "grafana" / "dashboards" / "mattemill.json").read_text())
    panels = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in board["panels"]
        for target in panel["targets"]
    }
    return panels | {rule["alert"]: rule["expr"] for rule in rules()}


def faults(query: str) -> list[str]:
    """Series and labels of a query that nobody shows."""
    known = shown()
    free = {"instance", "job", "le"}  # by Prometheus itself
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', query)
    found = []
    series = set()
    for name, matchers in re.findall(r"([a-zA-Z_:]\w*)\s*(?:\{([^}]*)\})?(?!\w*\s*\()", bare):
        if name in _WORDS or name in ("up", "ALERTS"):
            continue
        if name.startswith("mattemill"):
            series.add(name)
            if name not in known:
                found.append(name)
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
            found += sorted(labels - known.get(name, set()) - free)
    every = set().union(free, *(known.get(name, set()) for name in series), {"alertname", "alertstate"})
    for group in re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", bare):
        found += sorted({label.strip() for label in group.split(",") if label.strip()} - every)
    return found


def test_every_query_names_series_and_labels_that_exist() -> None:
    assert {title: found for title, query in queries().items() if (found := faults(query))} == {}


def test_the_reading_of_queries_sees_what_is_wrong() -> None:
    assert faults("sum by (queue) (rate(mattemill_messages_total[5m])) > 0") == []
    assert faults("rate(mattemill_messages[5m])") == ["mattemill_messages"]
    assert faults('mattemill_queue_messages{que="x"}') == ["que"]
    assert faults("sum by (stage, size) (mattemill_stage_seconds_count)") == ["size"]


def test_whatever_is_shown_is_looked_at() -> None:
    asked = " ".join(queries().values())
    unseen = {name for name in shown() if re.sub(r"_(bucket|sum|count)$", "", name) not in asked and name not in asked}
    # For whoever asks: how many runs there are, how full the engine's batches are in absolute numbers.
    assert unseen == {
        "mattemill_engine_batches_total", "mattemill_open_runs", "mattemill_open_run_images",
        "mattemill_sweep_finished_timestamp_seconds",
    }  # fmt: skip


def test_names_follow_prometheus_s_conventions() -> None:
    for name in shown():
        assert re.fullmatch(r"mattemill_[a-z_]+", name)
        assert not re.search(r"_(ms|milliseconds|mb|percent)\b", name)


def test_every_alert_has_its_entry_in_the_runbook_and_no_entry_is_without_an_alert() -> None:
    entries = set(re.findall(r"^\| `(Mattemill\w+)` \|", (ROOT / "docs/operate.md").read_text(), re.MULTILINE))
    assert entries == {rule["alert"] for rule in rules()}


def test_every_alert_says_how_bad_it_is_and_what_it_saw() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert "{{" in rule["annotations"]["summary"] or "absent" in rule["expr"]


def promtool(*words: str) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed: it comes with Prometheus (apt install prometheus)")
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_when_it_must_and_not_beside() -> None:
    promtool("test", "rules", str(ROOT / "tests" / "data" / "monitoring" / "rules_test.yml"))


def test_promtool_takes_the_configuration(tmp_path: Path) -> None:
    text = (MONITORING / "prometheus.yml").read_text().replace("/etc/prometheus", str(MONITORING))
    (tmp_path / "prometheus.yml").write_text(text)
    promtool("check", "config", "--lint=all", "--lint-fatal", str(tmp_path / "prometheus.yml"))


def test_gpus_are_shown_by_uuid_and_where_nvml_is_silent_nothing_is() -> None:
    asked: list[Sequence[str]] = []

    def look(uuids: Sequence[str]) -> dict[str, GpuLoad]:
        asked.append(uuids)
        return {"GPU-1": GpuLoad(5, 10, 0.25), "MIG-1": GpuLoad(1, 2, None)}

    def silent(uuids: Sequence[str]) -> dict[str, GpuLoad]:
        raise SetupError("The NVIDIA driver does not answer.")

    devices = ["tensorrt@MIG-1+share", "torch@GPU-1", "torch@GPU-1", "cpu", "fake:20"]
    samples = {
        (sample.name, sample.labels["uuid"]): sample.value
        for family in GpuGauges(devices, look).collect()
        for sample in family.samples
    }
    assert asked == [["GPU-1", "MIG-1"]]
    assert samples == {
        ("mattemill_gpu_memory_used_bytes", "GPU-1"): 5, ("mattemill_gpu_memory_bytes", "GPU-1"): 10,
        ("mattemill_gpu_utilisation_ratio", "GPU-1"): 0.25,
        ("mattemill_gpu_memory_used_bytes", "MIG-1"): 1, ("mattemill_gpu_memory_bytes", "MIG-1"): 2,
    }  # fmt: skip
    assert [family.samples for family in GpuGauges(devices, silent).collect()] == [[], [], []]
    assert [family.samples for family in GpuGauges(["cpu"], silent).collect()] == [[], [], []]


def test_what_encode_processes_work_on_is_shown_as_long_as_they_do() -> None:
    registry = CollectorRegistry()
    metrics = EncodeMetrics(registry)

    def in_flight() -> tuple[float | None, float | None]:
        return registry.get_sample_value("mattemill_encode_images"), registry.get_sample_value("mattemill_encode_bytes")

    with metrics.working_on(5), metrics.working_on(7):
        assert in_flight() == (2, 12)
    with pytest.raises(ValueError, match="broken"), metrics.working_on(5):
        raise ValueError("broken")
    assert in_flight() == (0, 0)
