"""`newsbert export kserve`."""

from typing import Annotated

from newsbert.cli._options import Debug, Json, TrackingUri, setting
from newsbert.cli._output import Output
from newsbert.cli.export._options import Image, ObjectName, PushedModel, print_manifests
from newsbert.core import config
from newsbert.core.settings import ImageSettings, KubernetesSettings, ServeSettings

EXAMPLES = """
Examples:

    newsbert export kserve BertModel/2 | kubectl apply -f -

    newsbert export kserve --image registry.example/team/newsbert-serving:BertModel-2 --name news --namespace news
"""


def kserve(
    model: PushedModel = None,
    image: Image = None,
    name: ObjectName = None,
    namespace: Annotated[str | None, setting(KubernetesSettings, "namespace")] = None,
    min_replicas: Annotated[int | None, setting(KubernetesSettings, "min_replicas")] = None,
    max_replicas: Annotated[int | None, setting(KubernetesSettings, "max_replicas")] = None,
    cpu: Annotated[str | None, setting(KubernetesSettings, "cpu")] = None,
    memory: Annotated[str | None, setting(KubernetesSettings, "memory")] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Print KServe's InferenceService for a model's image.

    It is the image with the native server, which speaks the Open Inference Protocol. Nothing is applied. Table
    [kubernetes] of newsbert.toml holds, and what a container takes of [serve].
    """
    screen = Output(as_json)
    settings = config.resolve(
        KubernetesSettings,
        namespace=namespace,
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        cpu=cpu,
        memory=memory,
    )
    serving = config.resolve(ServeSettings)
    from newsbert.deployment import kubernetes_manifests

    object_name, release = kubernetes_manifests.served(model, image, name, tracking_uri, config.resolve(ImageSettings))
    manifest = kubernetes_manifests.make_inference_service(object_name, release, settings, serving)
    print_manifests(screen, [manifest], manifest, release.image)
