"""Common interface of the deployment targets: releases, status and operations."""

import shlex
from dataclasses import dataclass
from typing import Protocol

from newsbert.bundle.contract import Contract
from newsbert.core.settings import ServeSettings
from newsbert.images.engine.engine import Engine


@dataclass(frozen=True)
class ServingImage:
    """A serving image, and what is known of the model in it.

    Attributes:
        image: A serving image.
        model: Version of the model in it, `BertModel/7`, if known.
        run_id: Run that trained it, if known.
    """

    image: str
    model: str | None = None
    run_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Release(ServingImage):
    """A verified image that is ready for deployment.

    Attributes:
        model: Name of the model according to the image.
        runtime: Runtime that computes its answers.
        contract: Contract of the model, as it is known here.
        signed_by: Trusted key that signed it, if `trusted_keys` are set.
    """

    model: str
    runtime: str
    contract: Contract
    signed_by: str | None = None


@dataclass(frozen=True)
class DeploymentStatus:
    """State of an environment.

    Attributes:
        environment: Name of the environment.
        model: The live model, `BertModel/7`.
        image: Image of the live model.
        runtime: Runtime that computes its answers.
        url: URL at which it answers.
        previous: The previous model, which can be put back; `None` if there was none.
        verification: Result of the verification with the golden texts, if it was done now.
    """

    environment: str
    model: str
    image: str
    runtime: str
    url: str
    previous: str | None = None
    verification: str | None = None


class Target(Protocol):
    """A platform that runs an environment.

    Attributes:
        local: Whether an image can be deployed there that only this machine's engine has.
    """

    local: bool

    def engine(self) -> Engine:
        """Return the engine in which an image is inspected before it starts.

        Raises:
            EngineError: If no engine answers.
        """
        ...

    def deployed(self) -> DeploymentStatus | None:
        """Return the status of the deployment, or `None` if nothing is deployed.

        Raises:
            NewsbertError: If the platform cannot be queried.
        """
        ...

    def deploy(self, release: Release, serving: ServeSettings) -> DeploymentStatus:
        """Deploy another image, once it gives its model's golden answers; otherwise the live model stays.

        Raises:
            UsageError: If the settings are not possible here.
            NewsbertError: If it is not accepted.
        """
        ...

    def back(self) -> DeploymentStatus:
        """Put the previous model back.

        Raises:
            NewsbertError: If there is no previous model, or it does not give its golden answers any more.
        """
        ...


def push_command(model: str) -> str:
    """Return the command that pushes a model's image to a registry."""
    return f"newsbert build-image {shlex.quote(model)} --push --repository registry.example/team"


def release_annotations(release: Release) -> dict[str, str]:
    """Return the annotations that a remote target stores beside a release, to identify later what it runs."""
    return {"newsbert/model": release.model, "newsbert/run": release.run_id or "", "newsbert/runtime": release.runtime}
