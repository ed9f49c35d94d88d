"""What an environment is to those who deploy to it."""

from dataclasses import dataclass
from typing import Protocol

from newsbert.settings import ServeSettings


@dataclass(frozen=True)
class Deployed:
    """What an environment runs.

    Attributes:
        environment: Its name.
        model: The model that answers, `BertModel/7`.
        image: Its image.
        url: Where it answers.
        before: The model before it, which can be put back; nothing if there was none.
        proof: How well it gave its golden texts' answers, if that was asked now.
    """

    environment: str
    model: str
    image: str
    url: str
    before: str | None = None
    proof: str | None = None


class Target(Protocol):
    """A place where one model answers under one address."""

    def deployed(self) -> Deployed | None:
        """What runs; nothing if nothing was deployed."""

    def deploy(self, image: str, serving: ServeSettings) -> Deployed:
        """Have another image answer; the one that does goes on until the other has been proved.

        Raises:
            NewsbertError: If it does not give its model's own answers, or cannot be run; then nothing has changed.
        """

    def back(self) -> Deployed:
        """Have the model before answer again.

        Raises:
            NewsbertError: If there is none, or it does not give its own answers any more.
        """
