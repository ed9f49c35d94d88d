"""The model registry: register a run's model as a version, tag it, and add aliases and files."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.bundle.bundle import Bundle
from newsbert.bundle.contract import SIGNATURE_FILE
from newsbert.core import temporary
from newsbert.core.identifiers import (
    parse_alias,
    parse_model_name,
)
from newsbert.errors import ModelError, TrackingError
from newsbert.tracking import artifacts, flavor, references
from newsbert.tracking.artifacts import MLFLOW_GIT_COMMIT, REVISION_TAG
from newsbert.tracking.runs import DATA_DIGEST_TAG, DIGEST_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

    from newsbert.tracking.client import TrackingClient


@dataclass(frozen=True)
class ModelVersionRef:
    """A version in the registry.

    Attributes:
        name: The registered model.
        version: Its number.
        run_id: The run whose model it is.
        created: Whether it is new: false if the run's model was registered before.
        alias: The alias that points at it, if one was set.
        choice: The chosen run and its user, if no run was specified.
        signed_by: The SHA-256 of the public key, if it was signed now.
    """

    name: str
    version: str
    run_id: str
    created: bool = False
    alias: str | None = None
    choice: str | None = None
    signed_by: str | None = None

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


def register(
    tracker: "TrackingClient",
    source: str | None,
    name: str,
    alias: str | None = None,
    *,
    sign: Path | None = None,
    digest: str | None = None,
) -> ModelVersionRef:
    """Register a run's model as a version of the registered model `name`.

    If the run is registered under this name already, the existing version is returned.

    Args:
        tracker: The tracking server.
        source: A run id, a `runs:/…` URI, or `None` for the latest finished run.
        name: The registered model; created if it does not exist.
        alias: An alias for the version.
        sign: The private key to sign the model with.
        digest: The digest of the bundle that the run must hold, if it is known.

    Raises:
        UsageError: If the name or the alias is invalid, or the key cannot be used.
        NotFoundError: If there is no such run.
        ModelError: If the run holds another bundle, or it was altered.
        TrackingError: If the run holds no newsbert model, or the registry refuses.
    """
    parse_model_name(name)
    if alias is not None:
        parse_alias(alias)
    run = references.find_run(tracker, source)
    # No signature is required here: the registry may hold models that are not signed yet.
    located = artifacts.fetch_run(tracker, run, check_signature=False)
    bundle = Bundle.read_unsigned(located.path)
    assert located.model_id is not None
    if digest is not None and bundle.digest != digest:
        raise ModelError(
            f"run {run.info.run_id} holds another bundle than the one that was logged to it",
            f"check who runs {tracker.where}",
        )
    signed_by = None if sign is None else _sign(tracker, bundle, located.model_id, sign)
    version = _find_version(tracker, name, run.info.run_id, located.model_id)
    created = version is None
    if version is None:
        version, created = _create_version(tracker, name, run, located.model_id, bundle)
    if alias is not None:
        tracker.set_alias(name, alias, str(version.version))
    choice = references.describe_run(run) if source is None else None
    return ModelVersionRef(name, str(version.version), run.info.run_id, created, alias, choice, signed_by)


def _sign(tracker: "TrackingClient", bundle: Bundle, model_id: str, key: Path) -> str:
    """Add a signature to a logged model's bundle, and return the SHA-256 of the public key."""
    signature, signed_by = bundle.sign(key)
    with temporary.directory() as directory:
        file = directory / SIGNATURE_FILE
        file.write_bytes(signature)
        with tracker.errors("the signature cannot be logged"):
            tracker.client.log_model_artifact(model_id, str(file), flavor.BUNDLE_SUBPATH)
    return signed_by


def _find_version(tracker: "TrackingClient", name: str, run_id: str, model_id: str) -> "ModelVersion | None":
    """Return the first version of a registered model that holds a run's model."""
    versions = [
        version
        for version in tracker.versions(name)
        if version.run_id == run_id and artifacts.model_id(version) == model_id
    ]
    return min(versions, key=lambda version: int(version.version), default=None)


def _create_version(
    tracker: "TrackingClient", name: str, run: "Run", model_id: str, bundle: Bundle
) -> "tuple[ModelVersion, bool]":
    """Create a version; if another process has registered the same run meanwhile, the first version stays.

    Returns:
        The version, and whether it was created here.
    """
    from mlflow.exceptions import MlflowException

    with tracker.errors():
        try:
            tracker.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = tracker.client.create_model_version(
            name,
            source=f"models:/{model_id}",
            run_id=run.info.run_id,
            model_id=model_id,
            tags=_version_tags(run, bundle),
            description=bundle.contract.description,
        )
    first = _find_version(tracker, name, run.info.run_id, model_id) or version
    created = int(first.version) == int(version.version)
    if not created:
        with tracker.errors():
            tracker.client.delete_model_version(name, str(version.version))
    return first, created


def version_tags(tracker: "TrackingClient", name: str, version: str) -> dict[str, str]:
    """Return a version's tags.

    Raises:
        NotFoundError: If there is no such version.
    """
    return dict(references.find_version(tracker, f"{name}/{version}").tags)


def tag_version(tracker: "TrackingClient", name: str, version: str, key: str, value: str) -> None:
    """Set a tag of a version.

    Raises:
        NotFoundError: If there is no such version.
        TrackingError: If the registry refuses.
    """
    number = str(references.find_version(tracker, f"{name}/{version}").version)
    with tracker.errors():
        tracker.client.set_model_version_tag(name, number, key, value)


def alias_version(tracker: "TrackingClient", name: str, version: str, alias: str) -> None:
    """Point an alias at a version, also if it pointed at another one before.

    Raises:
        UsageError: If the alias is invalid.
        NotFoundError: If there is no such version.
        TrackingError: If the registry refuses.
    """
    parse_model_name(name)
    parse_alias(alias)
    tracker.set_alias(name, alias, str(references.find_version(tracker, f"{name}/{version}").version))


def add_artifact(tracker: "TrackingClient", name: str, version: str, file: Path) -> None:
    """Add a file to a version's logged model, replacing a file of the same name.

    Raises:
        NotFoundError: If there is no such version.
        TrackingError: If the file cannot be added.
    """
    model_version = references.find_version(tracker, f"{name}/{version}")
    model_id = artifacts.model_id(model_version)
    if model_id is None:
        raise TrackingError(
            f"{name}/{version} was not registered from a logged model: {model_version.source}",
            f"newsbert register RUN_ID --model-name {shlex.quote(name)}",
        )
    with tracker.errors(f"{file.name} cannot be put beside {name}/{version}"):
        tracker.client.log_model_artifact(model_id, str(file))


def _version_tags(run: "Run", bundle: Bundle) -> dict[str, str]:
    """Return the tags of a version's origin: data, code and bundle."""
    tags = {
        "newsbert.version": bundle.contract.newsbert_version,
        "newsbert.data": str(bundle.contract.data["name"]),
        DATA_DIGEST_TAG: str(bundle.contract.data["sha256"]),
        "newsbert.base_model": bundle.contract.base_model["name"],
        DIGEST_TAG: bundle.digest,
    }
    revision = run.data.tags.get(MLFLOW_GIT_COMMIT)
    return {**tags, REVISION_TAG: revision} if revision else tags
