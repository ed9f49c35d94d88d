"""Kubernetes manifests: valid, as documented, and of one piece."""

import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from newsbert.images import run
from tests.support.cli import Cli

ROOT = Path(__file__).parents[3]
IMAGE = "registry.example/team/torchserve:BertModel-2"


def test_the_example_equals_the_output_and_is_valid(cli: Cli) -> None:
    ran = cli("export", "kubernetes", "--image", IMAGE, "--name", "news", "--allowed-namespaces", "web")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == (ROOT / "infra" / "kubernetes" / "news.yaml").read_text()
    assert f"Note: {IMAGE} is a tag" in ran.stderr
    objects = list(yaml.safe_load_all(ran.stdout))
    as_json = cli("export", "kubernetes", "--image", IMAGE, "--name", "news", "--allowed-namespaces", "web", "--json")
    assert json.loads(as_json.stdout) == {"apiVersion": "v1", "kind": "List", "items": objects}
    for manifest in objects:
        kubernetes_validate.validate(manifest, "1.37", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**objects[-1], "spec": {"minReplicas": "two"}}, "1.37", strict=True)


def test_selectors_and_ports_of_the_manifests_match(cli: Cli) -> None:
    manifests = _print_manifests(cli, "--image", IMAGE, "--name", "news", "--namespace", "team")
    assert {manifest["metadata"]["namespace"] for manifest in manifests.values()} == {"team"}
    template = manifests["Deployment"]["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    for kind, path in (
        ("Service", ("selector",)),
        ("Deployment", ("selector", "matchLabels")),
        ("PodDisruptionBudget", ("selector", "matchLabels")),
        ("NetworkPolicy", ("podSelector", "matchLabels")),
    ):
        selector: Any = manifests[kind]["spec"]
        for key in path:
            selector = selector[key]
        assert selector.items() <= labels, kind
    assert manifests["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "news"
    container = template["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert manifests["Service"]["spec"]["ports"][0]["targetPort"] in ports
    assert {rule["ports"][0]["port"] for rule in manifests["NetworkPolicy"]["spec"]["ingress"]} == ports.keys()
    dockerfile = (ROOT / "docker" / "torchserve.Dockerfile").read_text()
    assert f"EXPOSE {ports['http']}" in dockerfile
    # The image's own health check, and its own user.
    assert json.dumps(list(run.PROBE)) in dockerfile
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["exec"]["command"] == [*run.PROBE]
    native = _print_manifests(cli, "--image", IMAGE, "--server", "native")["Deployment"]["spec"]["template"]["spec"]
    paths = {name: probe["httpGet"] for name, probe in native["containers"][0].items() if name.endswith("Probe")}
    assert paths == {
        "startupProbe": {"path": "/v2/health/ready", "port": "http"},
        "readinessProbe": {"path": "/v2/health/ready", "port": "http"},
        "livenessProbe": {"path": "/v2/health/live", "port": "http"},
    }
    user = re.search(r"--uid (\d+)", (ROOT / "docker" / "base.Dockerfile").read_text())
    assert user is not None
    assert container["securityContext"]["runAsUser"] == int(user[1])


def test_serve_settings_are_in_the_manifests(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "newsbert.toml").write_text(
        "[serve]\ndrain_s = 60\nreview_threshold = 0.7\n"
        "[kubernetes]\nmin_replicas = 3\nallowed_namespaces = ['web', 'batch']\n"
    )
    manifests = _print_manifests(cli, "--image", IMAGE)
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > 60 + 5
    variables = {variable["name"]: variable["value"] for variable in pod["containers"][0]["env"]}
    assert (variables["NEWSBERT_SERVE_DRAIN_S"], variables["NEWSBERT_SERVE_REVIEW_THRESHOLD"]) == ("60", "0.7")
    assert manifests["HorizontalPodAutoscaler"]["spec"]["minReplicas"] == 3
    assert len(manifests["NetworkPolicy"]["spec"]["ingress"][0]["from"]) == 3
    assert manifests["Deployment"]["metadata"]["name"] == "torchserve"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is nothing to serve"),
        (["--image", IMAGE, "--name", "News_1"], "'News_1'"),
        (["--image", IMAGE, "--min-replicas", "5", "--max-replicas", "2"], "--max-replicas 2"),
        (["--image", IMAGE, "--min-replicas", "0"], "--min-replicas"),
        (["BertModel"], "there is no"),
    ],
)
def test_invalid_calls_are_errors(cli: Cli, arguments: list[str], message: str) -> None:
    refused = cli("export", "kubernetes", *arguments)
    assert refused.returncode in {1, 2}
    assert message in refused.stderr
    assert refused.stdout == ""


@pytest.mark.parametrize("command", [("kserve",), ("kubernetes", "--server", "native")], ids=" ".join)
def test_settings_that_the_server_does_not_have_are_errors(cli: Cli, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "newsbert.toml").write_text("[serve]\ntoken_auth = true\n")
    refused = cli("export", *command, "--image", IMAGE, "--name", "news")
    assert refused.returncode == 2
    assert "token_auth is for TorchServe" in refused.stderr


def _print_manifests(cli: Cli, *arguments: str) -> dict[str, Any]:
    ran = cli("export", "kubernetes", *arguments)
    assert ran.returncode == 0, ran.stderr
    return {manifest["kind"]: manifest for manifest in yaml.safe_load_all(ran.stdout)}
