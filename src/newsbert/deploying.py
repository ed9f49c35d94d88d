"""From a model version to an environment, and back."""

from collections.abc import Callable

from newsbert import api, building, config, containers, model_store
from newsbert.cloud_run import CloudRun
from newsbert.cluster import Cluster
from newsbert.errors import NewsbertError, NotFoundError, UsageError
from newsbert.host import Host
from newsbert.settings import (
    CloudRunSettings,
    ClusterSettings,
    HostSettings,
    ImageSettings,
    KubernetesSettings,
    ServeSettings,
)
from newsbert.target import Deployed, Release, Target, push_again


def environment(name: str, tracking_uri: str | None, on_log: Callable[[str], None]) -> Target:
    """Reach an environment of `newsbert.toml`.

    Args:
        name: Its name.
        tracking_uri: The tracking server.
        on_log: Called with what is done there.

    Raises:
        UsageError: If there is none of that name.
        NewsbertError: If what runs it does not answer.
    """
    known = config.environments()
    if name not in known:
        there = f"there are: {', '.join(sorted(known))}; or write" if known else "write"
        raise UsageError(
            f"there is no environment {name!r} in {config.CONFIG_FILE}",
            f"{there} [environments.{name}] and port = 8080",
        )
    settings = known[name]
    if isinstance(settings, ClusterSettings):
        return Cluster(name, settings, config.resolve(KubernetesSettings), on_log)
    if isinstance(settings, CloudRunSettings):
        return CloudRun(name, settings, tracking_uri, on_log)
    assert isinstance(settings, HostSettings)
    return Host(name, settings, on_log)


def release(reference: str, target: Target, images: ImageSettings, tracking_uri: str | None) -> Release:
    """What is to be deployed: what was pushed, by its digest, else the image that this machine's engine has.

    Args:
        reference: A version, such as `BertModel/7`, or an image.
        target: The environment.
        images: Where images are.
        tracking_uri: The tracking server.

    Raises:
        NotFoundError: If there is no such model, or no image of it that can be deployed there.
    """
    if containers.is_image(reference):
        return Release(reference)
    version = model_store.find_version(api.connect(tracking_uri), reference)
    model, pushed = f"{version.name}/{version.version}", version.tags.get(building.DIGEST_TAG)
    if pushed is None and not target.local:
        raise NotFoundError(f"no registry is known to have the image of {model}", push_again(model))
    image = str(pushed) if pushed is not None else containers.image_of(reference, images, tracking_uri)
    return Release(image, model, version.run_id, version.tags.get(building.RUNTIME_TAG))


def deploy(
    found: Release, target: Target, serving: ServeSettings, tracking_uri: str | None, on_log: Callable[[str], None]
) -> Deployed:
    """Have an image answer in an environment; the registry then calls its version by the environment's name.

    Args:
        found: What is to be deployed.
        target: The environment.
        serving: What the image is told.
        tracking_uri: The tracking server.
        on_log: Called with what is done.

    Raises:
        NewsbertError: If it does not give its own answers.
    """
    deployed = target.deploy(found, serving)
    _alias(deployed, tracking_uri, on_log)
    return deployed


def back(target: Target, tracking_uri: str | None, on_log: Callable[[str], None]) -> Deployed:
    """Have the model before answer again.

    Raises:
        NewsbertError: If there is no model before.
    """
    deployed = target.back()
    _alias(deployed, tracking_uri, on_log)
    return deployed


def _alias(deployed: Deployed, tracking_uri: str | None, on_log: Callable[[str], None]) -> None:
    """Give the version that answers the environment's name as alias, where it is one of the registry."""
    name, slash, version = deployed.model.rpartition("/")
    if not slash or not version.isdigit():
        return
    try:
        api.connect(tracking_uri).alias(name, version, deployed.environment)
    except NewsbertError as error:  # it answers all the same
        on_log(f"Note: {deployed.model} did not get the alias {deployed.environment!r}: {error.message}")
