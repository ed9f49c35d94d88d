"""Kubernetes manifests of a served image: rendered here, applied by `kubectl`."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from newsbert.core import config
from newsbert.core.installation import MissingExtraError
from newsbert.core.settings import ImageSettings, KubernetesSettings, ServeSettings
from newsbert.deployment.target import ServingImage, push_command
from newsbert.errors import NotFoundError, UsageError
from newsbert.images import build, run
from newsbert.images.reference import ImageReference
from newsbert.tracking import locate, lookup

USER = 10_001
"""Of the image."""

QUEUE_METRIC = "newsbert_queue_seconds"
"""What prometheus-adapter makes of TorchServe's counters, by the rule in infra/kubernetes/prometheus-adapter.yaml."""

_ENDPOINTS_S = 5
"""For how long a pod that is going goes on as before: until then others may still be sending requests to it."""

_LONGEST_NAME = 50


def served(
    reference: str | None, image: str | None, name: str | None, tracking_uri: str | None, images: ImageSettings
) -> tuple[str, ServingImage]:
    """Find what is to be served, and how its objects are called.

    Args:
        reference: A version, such as `BertModel/7`.
        image: Its image in a registry, if not the one that `build-image --push` noted.
        name: The objects' name, if not made of the model's.
        tracking_uri: The tracking server.
        images: Where images are.

    Raises:
        UsageError: If the name cannot be one, the image is none, or the registry names one outside of `[image]
            repository`.
        NotFoundError: If there is no such version, or it has not been pushed.
        ModelError: If trusted keys are set, and none of them has signed the version.
    """
    parsed = ImageReference.parse(image) if image is not None else None
    if reference is None:
        if parsed is None:
            raise UsageError("there is nothing to serve", "newsbert serve kubernetes BertModel/2")
        return _name(name or parsed.repository.rpartition("/")[2], name), ServingImage(str(parsed))
    version = lookup.find_version(locate.connect(tracking_uri), reference)
    model = f"{version.name}/{version.version}"
    if config.trusted_keys():
        locate.locate(model, tracking_uri=tracking_uri)  # refuses what no trusted key has signed
    pushed = parsed or build.pushed_image(version.tags, model, images)
    if pushed is None:
        raise NotFoundError(
            f"{model} has no image in a registry",
            f"{push_command(model)}, or give it: --image",
        )
    return _name(name or version.name, name), ServingImage(str(pushed), model, version.run_id)


def manifests(
    name: str,
    release: ServingImage,
    settings: KubernetesSettings,
    serving: ServeSettings,
    notes: Mapping[str, str] | None = None,
    deadline_s: float = 600,
) -> list[dict[str, Any]]:
    """The objects, in the order in which they are to be made.

    Args:
        name: How they are called.
        release: What is to be served.
        settings: Where, and how much of it.
        serving: What the image is told.
        notes: Annotations, besides the model and its run.
        deadline_s: After how long without progress a rollout has failed.

    Raises:
        UsageError: If the settings contradict each other.
    """
    if settings.max_replicas < settings.min_replicas:
        raise UsageError(
            f"--max-replicas {settings.max_replicas} is less than --min-replicas {settings.min_replicas}", "raise it"
        )
    selector = {"app.kubernetes.io/name": "newsbert", "app.kubernetes.io/instance": name}
    version = {"app.kubernetes.io/version": release.model.rpartition("/")[2]} if release.model else {}
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": settings.namespace,
        "labels": {**selector, **version, "app.kubernetes.io/component": "model-server"},
    }
    said = {"newsbert/model": release.model, "newsbert/run": release.run_id, **(notes or {})}
    annotations = {key: value for key, value in said.items() if value}
    if annotations:
        metadata["annotations"] = annotations

    def made(api_version: str, kind: str, **content: Any) -> dict[str, Any]:
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}

    return [
        made("v1", "ServiceAccount", automountServiceAccountToken=False),
        made("networking.k8s.io/v1", "NetworkPolicy", spec=_network(selector, settings)),
        made("policy/v1", "PodDisruptionBudget", spec={"maxUnavailable": 1, "selector": {"matchLabels": selector}}),
        made(
            "v1", "Service", spec={"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}
        ),
        made(
            "apps/v1",
            "Deployment",
            spec=_deployment(release.image, selector, metadata, settings, serving, math.ceil(deadline_s)),
        ),
        made("autoscaling/v2", "HorizontalPodAutoscaler", spec=_autoscaler(name, settings)),
    ]


def as_yaml(objects: list[dict[str, Any]]) -> str:
    """Objects as a stream of YAML documents, for people too.

    Raises:
        MissingExtraError: If PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("yaml", "deploy") from error

    # As JSON first: what stands in two places of an object is written twice, and no alias.
    texts = [yaml.safe_dump(json.loads(json.dumps(each)), sort_keys=False, width=110) for each in objects]
    return "---\n".join(texts).rstrip()


def _deployment(
    image: str,
    selector: dict[str, str],
    metadata: dict[str, Any],
    settings: KubernetesSettings,
    serving: ServeSettings,
    deadline_s: int,
) -> dict[str, Any]:
    told = {**run.environment(serving), "NEWSBERT_SERVE_LOG_FORMAT": "json"}
    told["NEWSBERT_SERVE_METRICS_PORT"] = str(run.CONTAINER_METRICS_PORT)
    resources = {"cpu": settings.cpu, "memory": settings.memory}
    container = {
        "name": "newsbert",
        "image": image,
        "imagePullPolicy": "Always",
        "env": [{"name": name, "value": told[name]} for name in sorted(told)],
        "ports": [
            {"name": "http", "containerPort": run.CONTAINER_PORT},
            {"name": "metrics", "containerPort": run.CONTAINER_METRICS_PORT},
        ],
        # The same: threads are as many as the limit's cores, and what a neighbour takes is time in the queue.
        "resources": {"requests": resources, "limits": resources},
        # Each has the model classify a text.
        "startupProbe": _probe(period=5, failures=round(serving.timeout_s / 5) or 1),
        "readinessProbe": _probe(period=10, failures=2),
        "livenessProbe": _probe(period=30, failures=4),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_ENDPOINTS_S)]}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": USER,
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - the container's own
    }
    pod = {
        "serviceAccountName": metadata["name"],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": round(_ENDPOINTS_S + run.stop_timeout_s(serving)),
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector},
            }
        ],
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
    }
    described = {
        "labels": metadata["labels"],
        "annotations": {
            **metadata.get("annotations", {}),
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(run.CONTAINER_METRICS_PORT),
        },
    }
    return {
        # Without a number of replicas: that is the autoscaler's, also when this is applied again.
        "selector": {"matchLabels": selector},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "minReadySeconds": 10,
        "progressDeadlineSeconds": deadline_s,
        "revisionHistoryLimit": 10,
        "template": {"metadata": described, "spec": pod},
    }


def _probe(period: int, failures: int) -> dict[str, Any]:
    return {
        "exec": {"command": list(run.PROBE)},
        "periodSeconds": period,
        "timeoutSeconds": 10,
        "failureThreshold": failures,
    }


def _autoscaler(name: str, settings: KubernetesSettings) -> dict[str, Any]:
    queue = {
        "type": "Pods",
        "pods": {
            "metric": {"name": QUEUE_METRIC},
            "target": {"type": "AverageValue", "averageValue": f"{settings.queue_ms}m"},
        },
    }
    cores = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }
    return {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": settings.min_replicas,
        "maxReplicas": settings.max_replicas,
        # Cores as well: where nobody serves the metric, it grows all the same.
        "metrics": [queue, cores],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
    }


def _network(selector: dict[str, str], settings: KubernetesSettings) -> dict[str, Any]:
    def namespaces(names: tuple[str, ...]) -> list[dict[str, Any]]:
        return [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}} for name in names]

    def port(name: str) -> list[dict[str, Any]]:
        return [{"port": name, "protocol": "TCP"}]

    return {
        "podSelector": {"matchLabels": selector},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [{"podSelector": {}}, *namespaces(settings.clients)], "ports": port("http")},
            {"from": namespaces((settings.monitoring,)), "ports": port("metrics")},
        ],
        # It asks nobody for anything.
        "egress": [],
    }


def _name(text: str, given: str | None) -> str:
    """A name as Kubernetes has them (RFC 1123), made of the model's.

    Raises:
        UsageError: If one was given that is none.
    """
    found = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_LONGEST_NAME].strip("-")
    if given is not None and found != given:
        raise UsageError(f"{given!r} cannot name a Kubernetes object", "use lower-case letters, digits and -")
    return found or "newsbert"
