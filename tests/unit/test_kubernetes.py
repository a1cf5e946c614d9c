"""The Kubernetes example: taken by the schemas of Kubernetes and KEDA, closed, probed, scaled by what waits."""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pipeline.jobs import ENCODE_QUEUE
from pipeline.ledger import ACTIVE
from pipeline.runs import matte_queue
from tests.conftest import ROOT
from tests.containers import KUBERNETES, VALUES, compose, documents
from workers import supervisor
from workers.app import lists

SCHEMAS = json.loads((ROOT / "tests" / "data" / "kubernetes" / "schemas.json").read_text())


def everything() -> list[Any]:
    return [document for path in KUBERNETES for document in documents(path)]


def objects(kind: str) -> dict[str, Any]:
    return {document["metadata"]["name"]: document for document in everything() if document["kind"] == kind}


def pods() -> dict[str, Any]:
    return {name: deployment["spec"]["template"]["spec"] for name, deployment in objects("Deployment").items()}


def faults(document: Any) -> list[str]:
    """Where a document is not what the API server takes."""
    validator = Draft202012Validator({**SCHEMAS, "$ref": f"#/$defs/kind.{document['kind']}"})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_the_api_server_takes_the_file(path: Path) -> None:
    wrong = {document["metadata"]["name"]: found for document in documents(path) if (found := faults(document))}
    assert wrong == {}


def test_the_schemas_see_what_is_wrong() -> None:
    deployment, scaled = objects("Deployment")["mattemill-web"], objects("ScaledObject")["mattemill-gpu"]
    for document, change in (
        (deployment, lambda d: d["spec"]["template"]["spec"]["containers"][0].update(readyProbe={})),
        (deployment, lambda d: d["spec"].update(replicas="1")),
        (deployment, lambda d: d["spec"].pop("selector")),
        (scaled, lambda d: d["spec"].update(minReplicas=0)),
        (scaled, lambda d: d["spec"]["triggers"][0]["metadata"].update(listLength=32)),
        (scaled, lambda d: d["metadata"].update(label={})),
    ):
        broken = deepcopy(document)
        change(broken)
        assert len(faults(broken)) == 1


def test_pods_are_closed_and_have_time_to_end() -> None:
    assert set(pods()) == {f"mattemill-{role}" for role in ("gpu", "cpu", "beat", "web", "flower")}
    for name, pod in pods().items():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["terminationGracePeriodSeconds"] >= supervisor._GRACE + 20
        assert all("readinessProbe" in container for container in pod["containers"]), name
        assert pod["automountServiceAccountToken"] is False
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_what_is_read_from_secrets_is_what_the_docs_put_there() -> None:
    """And no worker gets the passwords of the pages."""
    told = re.sub(r"\\\n", " ", (ROOT / "docs" / "deploy.md").read_text())
    made = {
        name: set(re.findall(r"--from-(?:literal|file)=([\w.]+)=", rest))
        for name, rest in re.findall(r"kubectl create (?:secret generic|configmap) ([\w-]+) (.*)", told)
    }
    made["mattemill"] |= set(objects("ConfigMap")["mattemill"]["data"])
    for name, pod in pods().items():
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            taken = [
                variable["valueFrom"]["secretKeyRef"]
                for variable in container.get("env", [])
                if "valueFrom" in variable
            ]
            assert all(one["key"] in made[one["name"]] for one in taken), name
            assert {next(iter(one.values()))["name"] for one in container.get("envFrom", [])} <= {"mattemill"}, name
        maps = {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
        assert maps <= set(made)
    passwords = {"MATTEMILL_WEB_PASSWORD", "FLOWER_PASSWORD"}
    assert made["mattemill-pages"] == passwords
    assert not passwords & made["mattemill"]


@pytest.mark.parametrize("page", ["web", "flower"])
def test_a_page_is_what_compose_runs_and_a_service_leads_to_it(page: str) -> None:
    (container,) = pods()[f"mattemill-{page}"]["containers"]
    service = compose(VALUES)["services"][page]
    assert container["args"] == service["command"]
    assert container.get("command") == service.get("entrypoint")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert f"--port={ports['http']}" in container["args"]
    spec = objects("Service")[f"mattemill-{page}"]["spec"]
    assert spec["type"] == "ClusterIP"
    assert [(port["port"], port["targetPort"]) for port in spec["ports"]] == [(ports["http"], "http")]
    labels = objects("Deployment")[f"mattemill-{page}"]["spec"]["template"]["metadata"]["labels"]
    assert spec["selector"].items() <= labels.items()
    probes = {probe: container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")}
    asked = re.findall(r":\d+(/\w+)", " ".join(service["healthcheck"]["test"]))
    assert probes["readinessProbe"] in asked


def test_the_live_page_is_let_in_from_one_namespace_and_flower_from_none() -> None:
    policies = {name: policy["spec"] for name, policy in objects("NetworkPolicy").items()}
    assert set(policies) == {"mattemill", "mattemill-web"}
    assert policies["mattemill-web"]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "mattemill-web"}
    (rule,) = policies["mattemill-web"]["ingress"]
    assert rule["from"]
    assert [port["port"] for port in rule["ports"]] == ["http"]
    (rule,) = policies["mattemill"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["metrics"]
    for deployment in objects("Deployment").values():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert policies["mattemill"]["podSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("name", [f"mattemill-{role}" for role in ("gpu", "cpu", "beat", "web")])
def test_prometheus_finds_the_page_of_each_pod_and_nobody_else_reaches_a_pod(name: str) -> None:
    template = objects("Deployment")[name]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    (port,) = [port for port in container["ports"] if port["name"] == "metrics"]
    set_here = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert set_here["MATTEMILL_METRICS_PORT"] == str(port["containerPort"])
    assert set_here["MATTEMILL_METRICS_HOST"] == "0.0.0.0"
    assert template["metadata"]["annotations"] == {
        "prometheus.io/scrape": "true", "prometheus.io/port": str(port["containerPort"]),
        "prometheus.io/path": "/metrics",
    }  # fmt: skip
    policy = objects("NetworkPolicy")["mattemill"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (rule,) = policy["ingress"]
    assert [allowed["port"] for allowed in rule["ports"]] == [port["name"]]
    assert rule["from"]


def test_a_gpu_pod_has_one_gpu_and_no_budget_names_a_stranger() -> None:
    (gpu,) = pods()["mattemill-gpu"]["containers"]
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == 1
    labels = [deployment["spec"]["template"]["metadata"]["labels"] for deployment in objects("Deployment").values()]
    budgets = objects("PodDisruptionBudget")
    assert set(budgets) == {"mattemill-gpu", "mattemill-cpu"}
    for budget in budgets.values():
        assert any(budget["spec"]["selector"]["matchLabels"].items() <= each.items() for each in labels)


@pytest.mark.parametrize(
    ("name", "queue"), [("mattemill-gpu", matte_queue("u2netp", "320x320")), ("mattemill-cpu", ENCODE_QUEUE)]
)
def test_scaling_counts_what_waits_and_what_is_worked_on(name: str, queue: str) -> None:
    spec = objects("ScaledObject")[name]["spec"]
    assert spec["scaleTargetRef"]["name"] in objects("Deployment")
    names = {trigger["name"]: trigger["metadata"]["listName"] for trigger in spec["triggers"]}
    urgent, waiting = lists(queue)
    assert names == {"urgent": urgent, "waiting": waiting, "working": "unacked", "active": ACTIVE}
    formula = spec["advanced"]["scalingModifiers"]["formula"]
    assert set(re.findall(r"[a-z]+", formula)) == set(names)
