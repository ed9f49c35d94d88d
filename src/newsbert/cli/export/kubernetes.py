"""`newsbert export kubernetes`."""

from typing import Annotated

from newsbert.cli._options import Debug, Json, Server, TrackingUri, setting
from newsbert.cli._output import Output
from newsbert.cli.export._options import Image, ObjectName, PushedModel, print_manifests
from newsbert.core import config
from newsbert.core.settings import ImageSettings, KubernetesSettings, ServeSettings

EXAMPLES = """
Examples:

    newsbert export kubernetes BertModel/2 | kubectl apply -f -

    newsbert export kubernetes BertModel@champion --namespace news --max-replicas 20 --allowed-namespaces web

    newsbert export kubernetes --image registry.example/team/torchserve:BertModel-2 --name news

    newsbert export kubernetes --image registry.example/team/newsbert-serving:BertModel-2 --server native
"""


def kubernetes(
    model: PushedModel = None,
    image: Image = None,
    server: Server = None,
    name: ObjectName = None,
    namespace: Annotated[str | None, setting(KubernetesSettings, "namespace")] = None,
    min_replicas: Annotated[int | None, setting(KubernetesSettings, "min_replicas")] = None,
    max_replicas: Annotated[int | None, setting(KubernetesSettings, "max_replicas")] = None,
    target_queue_ms: Annotated[int | None, setting(KubernetesSettings, "target_queue_ms")] = None,
    cpu: Annotated[str | None, setting(KubernetesSettings, "cpu")] = None,
    memory: Annotated[str | None, setting(KubernetesSettings, "memory")] = None,
    allowed_namespaces: Annotated[
        str | None, setting(KubernetesSettings, "allowed_namespaces", metavar="NAMESPACES")
    ] = None,
    monitoring: Annotated[str | None, setting(KubernetesSettings, "monitoring", metavar="NAMESPACE")] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Print Kubernetes manifests that serve a model's image.

    A deployment with probes, a service, an autoscaler on the time in the queue, a disruption budget and
    a network policy; nothing is applied. Table [kubernetes] of newsbert.toml holds, and
    what a container takes of [serve].
    """
    screen = Output(as_json)
    settings = config.resolve(
        KubernetesSettings,
        namespace=namespace,
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        target_queue_ms=target_queue_ms,
        cpu=cpu,
        memory=memory,
        allowed_namespaces=allowed_namespaces,
        monitoring=monitoring,
    )
    serve_settings = config.resolve(ServeSettings, server=server)
    from newsbert.deployment import kubernetes_manifests as kubernetes

    object_name, release = kubernetes.served(model, image, name, tracking_uri, config.resolve(ImageSettings))
    manifests = kubernetes.manifests(object_name, release, settings, serve_settings)
    document = {"apiVersion": "v1", "kind": "List", "items": manifests}
    print_manifests(screen, manifests, document, release.image)
