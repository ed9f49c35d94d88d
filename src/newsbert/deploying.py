"""From a model version to an environment, and back."""

from collections.abc import Callable

from newsbert import api, building, config, containers, model_store
from newsbert.errors import NewsbertError, UsageError
from newsbert.host import Deployed, Host
from newsbert.settings import ImageSettings, ServeSettings


def environment(name: str, on_log: Callable[[str], None]) -> Host:
    """Reach an environment of `newsbert.toml`.

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
    return Host(name, known[name], on_log)


def image(reference: str, images: ImageSettings, tracking_uri: str | None) -> str:
    """The image of a model: what was pushed, by its digest, else the one that this machine's engine has.

    Args:
        reference: A version, such as `BertModel/7`, or an image.
        images: Where images are.
        tracking_uri: The tracking server.

    Raises:
        NewsbertError: If there is no such model or image.
    """
    if not containers.is_image(reference):
        version = model_store.find_version(api.connect(tracking_uri), reference)
        pushed = version.tags.get(building.DIGEST_TAG)
        if pushed is not None:
            return str(pushed)
    return containers.image_of(reference, images, tracking_uri)


def deploy(
    found: str, target: Host, serving: ServeSettings, tracking_uri: str | None, on_log: Callable[[str], None]
) -> Deployed:
    """Have an image answer in an environment; the registry then calls its version by the environment's name.

    Args:
        found: The image.
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


def back(target: Host, tracking_uri: str | None, on_log: Callable[[str], None]) -> Deployed:
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
