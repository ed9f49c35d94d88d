"""What environments have in common: what is deployed to one, what is there, and what it can do."""

import shlex
from dataclasses import dataclass
from typing import Protocol

from newsbert.bundle.contract import Contract
from newsbert.core.settings import ServeSettings
from newsbert.images.engine.engine import Engine


@dataclass(frozen=True)
class ServingImage:
    """An image and what is known of the model in it.

    Attributes:
        image: A serving image.
        model: The version in it, `BertModel/7`, where it is known.
        run_id: The run that trained it, where it is known.
    """

    image: str
    model: str | None = None
    run_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Release(ServingImage):
    """An image that was checked, to be deployed.

    Attributes:
        model: What the image calls its model.
        runtime: What computes its answers.
        contract: The model's, as it is known here.
        signed_by: The trusted key that signed it, where `trusted_keys` are set.
    """

    model: str
    runtime: str
    contract: Contract
    signed_by: str | None = None


@dataclass(frozen=True)
class DeploymentStatus:
    """What an environment runs.

    Attributes:
        environment: Its name.
        model: The model that answers, `BertModel/7`.
        image: Its image.
        runtime: What of its graphs answers.
        url: Where it answers.
        before: The model before it, which can be put back; nothing if there was none.
        proof: How well it gave its golden texts' answers, if that was asked now.
    """

    environment: str
    model: str
    image: str
    runtime: str
    url: str
    before: str | None = None
    proof: str | None = None


class Target(Protocol):
    """What runs an environment.

    Attributes:
        local: Whether an image that this machine's engine alone has can be deployed there.
    """

    local: bool

    def engine(self) -> Engine:
        """Return the engine in which an image is looked at before it starts.

        Raises:
            EngineError: If none answers.
        """
        ...

    def deployed(self) -> DeploymentStatus | None:
        """What runs; nothing if nothing was deployed.

        Raises:
            NewsbertError: If it cannot be asked.
        """
        ...

    def deploy(self, release: Release, serving: ServeSettings) -> DeploymentStatus:
        """Have another image answer, once it gives its model's own answers; else what answered goes on.

        Raises:
            UsageError: If the settings cannot be here.
            NewsbertError: If it is not taken.
        """
        ...

    def back(self) -> DeploymentStatus:
        """Have the model before answer again.

        Raises:
            NewsbertError: If there is none, or it does not give its own answers any more.
        """
        ...


def push_command(model: str) -> str:
    """The command that puts a model's image into a registry."""
    return f"newsbert build-image {shlex.quote(model)} --push --repository registry.example/team"


def release_annotations(release: Release) -> dict[str, str]:
    """What a target elsewhere keeps of a release beside it, to tell later what it runs."""
    return {"newsbert/model": release.model, "newsbert/run": release.run_id or "", "newsbert/runtime": release.runtime}
