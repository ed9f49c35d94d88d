"""Kubernetes manifests of a served image: rendered here, applied by `kubectl`."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from newsbert.core import config
from newsbert.core.installation import MissingExtraError
from newsbert.core.settings import NATIVE, ImageSettings, KubernetesSettings, ServeSettings
from newsbert.deployment.target import ServingImage, push_command
from newsbert.errors import NotFoundError, UsageError
from newsbert.images import build, run
from newsbert.images.reference import ImageReference
from newsbert.serving import local
from newsbert.tracking import locate, references

USER = 10_001
"""User id in the image."""

QUEUE_METRIC = "newsbert_queue_seconds"
"""Metric that prometheus-adapter derives from the server's metrics, by infra/kubernetes/prometheus-adapter.yaml."""

SCRAPED = {"prometheus.io/scrape": "true", "prometheus.io/port": str(run.CONTAINER_METRICS_PORT)}
"""Annotations by which Prometheus finds the metrics."""

_ENDPOINTS_S = 5
"""Seconds for which a terminating pod still answers: until then, requests may still be sent to it."""

_MAX_NAME_LENGTH = 50


def served(
    reference: str | None, image: str | None, name: str | None, tracking_uri: str | None, images: ImageSettings
) -> tuple[str, ServingImage]:
    """Return the name of the objects and the image to serve.

    Args:
        reference: A version, such as `BertModel/7`.
        image: Image of the version in a registry; defaults to the one that `build-image --push` recorded.
        name: Name of the objects; defaults to one derived from the model's.
        tracking_uri: URI of the tracking server.
        images: Image settings.

    Raises:
        UsageError: If the name or the image is not valid, or the registry names an image outside of `[image]
            repository`.
        NotFoundError: If there is no such version, or it has not been pushed.
        ModelError: If trusted keys are set, and none of them has signed the version.
    """
    parsed = ImageReference.parse(image) if image is not None else None
    if reference is None:
        if parsed is None:
            raise UsageError("there is nothing to serve", "give a version, such as BertModel/2, or --image")
        return _make_name(name or parsed.repository.rpartition("/")[2], name), ServingImage(str(parsed))
    version = references.find_version(locate.connect(tracking_uri), reference)
    model = f"{version.name}/{version.version}"
    if config.trusted_keys():
        locate.locate(model, tracking_uri=tracking_uri)  # rejects a version that no trusted key has signed
    pushed = parsed or build.pushed_image(version.tags, model, images)
    if pushed is None:
        raise NotFoundError(
            f"{model} has no image in a registry",
            f"{push_command(model)}, or give it: --image",
        )
    return _make_name(name or version.name, name), ServingImage(str(pushed), model, version.run_id)


def manifests(
    name: str,
    release: ServingImage,
    settings: KubernetesSettings,
    serving: ServeSettings,
    notes: Mapping[str, str] | None = None,
    deadline_s: float = 600,
) -> list[dict[str, Any]]:
    """Return the objects in the order of their creation.

    Args:
        name: Name of the objects.
        release: Image to serve.
        settings: Namespace, resources and scaling.
        serving: Settings that are passed to the image.
        notes: Annotations, besides the model and its run.
        deadline_s: Seconds without progress after which a rollout has failed.

    Raises:
        UsageError: If the settings contradict one another.
    """
    _check_replicas(settings)
    selector = {"app.kubernetes.io/name": "newsbert", "app.kubernetes.io/instance": name}
    version = {"app.kubernetes.io/version": release.model.rpartition("/")[2]} if release.model else {}
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": settings.namespace,
        "labels": {**selector, **version, "app.kubernetes.io/component": "model-server"},
    }
    candidates = {"newsbert/model": release.model, "newsbert/run": release.run_id, **(notes or {})}
    annotations = {key: value for key, value in candidates.items() if value}
    if annotations:
        metadata["annotations"] = annotations

    def made(api_version: str, kind: str, **content: Any) -> dict[str, Any]:
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}

    return [
        made("v1", "ServiceAccount", automountServiceAccountToken=False),
        made("networking.k8s.io/v1", "NetworkPolicy", spec=_make_network_policy(selector, settings)),
        made("policy/v1", "PodDisruptionBudget", spec={"maxUnavailable": 1, "selector": {"matchLabels": selector}}),
        made(
            "v1", "Service", spec={"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}
        ),
        made(
            "apps/v1",
            "Deployment",
            spec=_make_deployment(release.image, selector, metadata, settings, serving, math.ceil(deadline_s)),
        ),
        made("autoscaling/v2", "HorizontalPodAutoscaler", spec=_make_autoscaler(name, settings)),
    ]


def make_inference_service(
    name: str, release: ServingImage, settings: KubernetesSettings, serving: ServeSettings
) -> dict[str, Any]:
    """Return KServe's object that serves an image of the native server.

    Source: https://github.com/kserve/kserve: serving.kserve.io/v1beta1, with a container of one's own.

    Raises:
        UsageError: If the settings contradict one another.
    """
    _check_replicas(settings)
    notes = {"newsbert/model": release.model, "newsbert/run": release.run_id}
    pod = _make_pod(release.image, "kserve-container", settings, replace(serving, server=NATIVE))
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            "annotations": {
                # A Deployment: Knative, the other mode, does not take all fields of a pod. 0.16 calls it Standard.
                "serving.kserve.io/deploymentMode": "RawDeployment",
                **SCRAPED,
                **{key: value for key, value in notes.items() if value},
            },
        },
        "spec": {"predictor": {"minReplicas": settings.min_replicas, "maxReplicas": settings.max_replicas, **pod}},
    }


def as_yaml(objects: list[dict[str, Any]]) -> str:
    """Return objects as a stream of YAML documents that people can read.

    Raises:
        MissingExtraError: If PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("yaml", "deploy") from error

    # As JSON first: a value in two places of an object is then written twice, and not as an alias.
    texts = [yaml.safe_dump(json.loads(json.dumps(manifest)), sort_keys=False, width=110) for manifest in objects]
    return "---\n".join(texts).rstrip()


def _make_deployment(
    image: str,
    selector: dict[str, str],
    metadata: dict[str, Any],
    settings: KubernetesSettings,
    serving: ServeSettings,
    deadline_s: int,
) -> dict[str, Any]:
    pod = {
        "serviceAccountName": metadata["name"],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector},
            }
        ],
        **_make_pod(image, "newsbert", settings, serving),
    }
    template_metadata = {
        "labels": metadata["labels"],
        "annotations": {**metadata.get("annotations", {}), **SCRAPED},
    }
    return {
        # No number of replicas: the autoscaler sets it, and applying the manifest again must not change it.
        "selector": {"matchLabels": selector},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "minReadySeconds": 10,
        "progressDeadlineSeconds": deadline_s,
        "revisionHistoryLimit": 10,
        "template": {"metadata": template_metadata, "spec": pod},
    }


def _make_pod(image: str, container_name: str, settings: KubernetesSettings, serving: ServeSettings) -> dict[str, Any]:
    """Return the specification of a pod with one container."""
    local.check_settings(serving)
    variables = {**run.environment(serving), "NEWSBERT_SERVE_LOG_FORMAT": "json"}
    variables["NEWSBERT_SERVE_METRICS_PORT"] = str(run.CONTAINER_METRICS_PORT)
    resources = {"cpu": settings.cpu, "memory": settings.memory}
    container = {
        "name": container_name,
        "image": image,
        "imagePullPolicy": "Always",
        "env": [{"name": name, "value": variables[name]} for name in sorted(variables)],
        "ports": [
            {"name": "http", "containerPort": run.CONTAINER_PORT},
            {"name": "metrics", "containerPort": run.CONTAINER_METRICS_PORT},
        ],
        # Requests equal limits: there are as many threads as the limit has cores, and what a neighbour takes of them is
        # time in the queue.
        "resources": {"requests": resources, "limits": resources},
        "startupProbe": _make_probe(serving.server, "ready", period=5, failures=round(serving.timeout_s / 5) or 1),
        "readinessProbe": _make_probe(serving.server, "ready", period=10, failures=2),
        "livenessProbe": _make_probe(serving.server, "live", period=30, failures=4),
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
    return {
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
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
    }


def _check_replicas(settings: KubernetesSettings) -> None:
    if settings.max_replicas < settings.min_replicas:
        raise UsageError(
            f"--max-replicas {settings.max_replicas} is less than --min-replicas {settings.min_replicas}", "raise it"
        )


def _make_probe(server: str, state: str, period: int, failures: int) -> dict[str, Any]:
    """Return a probe: the native server watches its model itself, and TorchServe has to classify a text."""
    how = (
        {"httpGet": {"path": f"/v2/health/{state}", "port": "http"}}
        if server == NATIVE
        else {"exec": {"command": list(run.PROBE)}}
    )
    return {
        **how,
        "periodSeconds": period,
        "timeoutSeconds": 10,
        "failureThreshold": failures,
    }


def _make_autoscaler(name: str, settings: KubernetesSettings) -> dict[str, Any]:
    queue = {
        "type": "Pods",
        "pods": {
            "metric": {"name": QUEUE_METRIC},
            "target": {"type": "AverageValue", "averageValue": f"{settings.target_queue_ms}m"},
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
        # CPU as well: it also scales where the queue metric is not available.
        "metrics": [queue, cores],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
    }


def _make_network_policy(selector: dict[str, str], settings: KubernetesSettings) -> dict[str, Any]:
    def namespaces(names: tuple[str, ...]) -> list[dict[str, Any]]:
        return [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}} for name in names]

    def port(name: str) -> list[dict[str, Any]]:
        return [{"port": name, "protocol": "TCP"}]

    return {
        "podSelector": {"matchLabels": selector},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [{"podSelector": {}}, *namespaces(settings.allowed_namespaces)], "ports": port("http")},
            {"from": namespaces((settings.monitoring,)), "ports": port("metrics")},
        ],
        # The server needs no outgoing connections.
        "egress": [],
    }


def _make_name(text: str, name_option: str | None) -> str:
    """Return a Kubernetes object name (RFC 1123) derived from the model's name.

    Raises:
        UsageError: If `name_option` is set and is not a valid name.
    """
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_MAX_NAME_LENGTH].strip("-")
    if name_option is not None and name != name_option:
        raise UsageError(f"{name_option!r} cannot name a Kubernetes object", "use lower-case letters, digits and -")
    return name or "newsbert"
