"""Deployment of a model version to an environment, and its rollback."""

import hashlib
import shlex
from collections.abc import Callable, Mapping

from newsbert.bundle.bundle import RUNTIME_FILES, Bundle
from newsbert.bundle.contract import Contract
from newsbert.core import config, config_file
from newsbert.core.settings import (
    CloudRunSettings,
    ClusterSettings,
    HostSettings,
    ImageSettings,
    KubernetesSettings,
    ServeSettings,
)
from newsbert.deployment.cloud_run import CloudRun
from newsbert.deployment.docker_host import DockerHostTarget
from newsbert.deployment.kubernetes import KubernetesTarget
from newsbert.deployment.target import DeploymentStatus, Release, Target, push_command
from newsbert.errors import EngineError, ModelError, NewsbertError, NotFoundError, UsageError
from newsbert.images import build, run
from newsbert.images.contexts import DIGEST_LABEL, MODEL_LABEL, RUNTIME_LABEL
from newsbert.images.reference import ImageReference
from newsbert.tracking import locate, references, registry


def environment(name: str, tracking_uri: str | None, on_log: Callable[[str], None]) -> Target:
    """Connect to an environment of `newsbert.toml`.

    Args:
        name: Name of the environment.
        tracking_uri: URI of the tracking server.
        on_log: Called with the environment's log messages.

    Raises:
        UsageError: If there is no environment of that name.
        NewsbertError: If its platform does not answer.
    """
    environments = config.environments()
    if name not in environments:
        choices = f"there are: {', '.join(sorted(environments))}; or write" if environments else "write"
        raise UsageError(
            f"there is no environment {name!r} in {config_file.CONFIG_FILE}",
            f"{choices} [environments.{name}] and port = 8080",
        )
    settings = environments[name]
    if isinstance(settings, ClusterSettings):
        return KubernetesTarget(name, settings, config.resolve(KubernetesSettings), on_log)
    if isinstance(settings, CloudRunSettings):
        return CloudRun(name, settings, tracking_uri, on_log)
    assert isinstance(settings, HostSettings)
    return DockerHostTarget(name, settings, on_log)


def release(reference: str, target: Target, images: ImageSettings, tracking_uri: str | None) -> Release:
    """Choose the image to deploy, and check its labels before it starts.

    For a version, this is the image that was pushed, by its digest, else the one in this machine's engine.

    Args:
        reference: A version, such as `BertModel/7`, or an image.
        target: The environment.
        images: Image settings.
        tracking_uri: URI of the tracking server.

    Raises:
        NotFoundError: If there is no such model, or no image of it that can be deployed there.
        UsageError: If the registry names an image outside of `[image] repository`, or an image is deployed where only a
            version can be.
        ModelError: If the image holds another model than the version.
    """
    if run.is_image(reference):
        if not target.local:
            raise UsageError(f"{reference!r} is an image, and here a version is needed", "newsbert deploy BertModel/2")
        return _release_image(str(ImageReference.parse(reference)), target)
    version = references.find_version(locate.connect(tracking_uri), reference)
    model = f"{version.name}/{version.version}"
    pushed = build.pushed_image(version.tags, model, images)
    if pushed is None and not target.local:
        raise NotFoundError(f"no registry is known to have the image of {model}", push_command(model))
    bundle = Bundle.read(locate.locate(model, tracking_uri=tracking_uri).path)
    image = str(pushed) if pushed is not None else run.image_of(model, images, tracking_uri)
    labels = _read_labels(image, target)
    expected = {MODEL_LABEL: model, DIGEST_LABEL: bundle.digest}
    for label, value in expected.items():
        if labels.get(label) != value:
            raise ModelError(
                f"{image} holds another model than {model}: its label {label} is {labels.get(label)!r} instead of "
                f"{value!r}",
                f"newsbert build-image {shlex.quote(model)}{' --push' if pushed is not None else ''}",
            )
    return Release(
        image=image,
        model=model,
        run_id=version.run_id,
        runtime=_read_runtime(image, labels),
        contract=bundle.contract,
        signed_by=bundle.signed_by,
    )


def _release_image(image: str, target: Target) -> Release:
    """Return the release for an image that the user names.

    Its contract is the one in the image, if its digest is the one in the label.
    """
    labels = _read_labels(image, target)
    contract_file, signed_by = run.read_contract(target.engine(), image)
    try:
        contract = Contract.from_json(contract_file.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{image} is no serving image of newsbert: {error}", "newsbert build-image MODEL") from error
    if hashlib.sha256(contract_file).hexdigest() != labels.get(DIGEST_LABEL):
        raise ModelError(f"{image} holds another model than its label {DIGEST_LABEL} names", "build it again")
    runtime = _read_runtime(image, labels)
    model = labels.get(MODEL_LABEL, "")
    return Release(image=image, model=model, runtime=runtime, contract=contract, signed_by=signed_by)


def _read_labels(image: str, target: Target) -> dict[str, str]:
    """Return an image's labels from the environment's engine or this machine's, which pulls the image if it is missing.

    Raises:
        EngineError: If there is no engine, or it cannot get the image.
    """
    try:
        engine = target.engine()
        if not engine.has_image(image):
            engine.pull(image)
        return engine.labels(image)
    except EngineError as error:
        raise EngineError(f"the labels of {image} cannot be read: {error.message}", error.hint) from error


def _read_runtime(image: str, labels: Mapping[str, str]) -> str:
    runtime = labels.get(RUNTIME_LABEL, "")
    if runtime not in RUNTIME_FILES:
        raise ModelError(f"{image} has the label {RUNTIME_LABEL}={runtime!r}, which is no runtime", "build it again")
    return runtime


def deploy(
    release: Release, target: Target, serving: ServeSettings, tracking_uri: str | None, on_log: Callable[[str], None]
) -> DeploymentStatus:
    """Deploy an image to an environment; in the registry, its version then gets the environment's name as alias.

    Args:
        release: Release to deploy.
        target: The environment.
        serving: Settings that are passed to the image.
        tracking_uri: URI of the tracking server.
        on_log: Called with log messages.

    Raises:
        NewsbertError: If the model does not give its golden answers.
    """
    if release.signed_by:
        on_log(f"{release.model} is signed by {release.signed_by}")
    deployed = target.deploy(release, serving)
    _set_alias(deployed, tracking_uri, on_log)
    return deployed


def roll_back(target: Target, tracking_uri: str | None, on_log: Callable[[str], None]) -> DeploymentStatus:
    """Put the previous model back.

    Raises:
        NewsbertError: If there is no previous model.
    """
    deployed = target.back()
    _set_alias(deployed, tracking_uri, on_log)
    return deployed


def _set_alias(deployed: DeploymentStatus, tracking_uri: str | None, on_log: Callable[[str], None]) -> None:
    """Set the environment's name as alias of the live version, if it is a version of the registry."""
    name, slash, version = deployed.model.rpartition("/")
    if not slash or not version.isdigit():
        return
    try:
        registry.alias_version(locate.connect(tracking_uri), name, version, deployed.environment)
    except NewsbertError as error:  # the model is live all the same
        on_log(f"Note: {deployed.model} did not get the alias {deployed.environment!r}: {error.message}")
