"""The models that a playground shows: loaded here, or served somewhere."""

from dataclasses import dataclass

from newsbert.core.settings import ServeSettings
from newsbert.errors import TrackingError
from newsbert.inference.model import Model
from newsbert.serving.client import Client
from newsbert.tracking import locate

RETRY_S = 5.0
"""How long a server is asked again that does not answer: a person waits."""


@dataclass(frozen=True)
class LoadedModel:
    """A model on the page.

    Attributes:
        predictor: What answers.
        runtime: What computes the answers, where that is known.
        review_below: The score below which a person has to see an answer, where that is known.
        run_id: The MLflow run that made it, where that is known.
        run_page: That run's page, where a tracking server has one.
    """

    predictor: Model | Client
    runtime: str | None = None
    review_below: float | None = None
    run_id: str | None = None
    run_page: str | None = None

    def to_dict(self) -> dict[str, object]:
        """What the page is told of it."""
        return {
            "name": self.predictor.name,
            "runtime": self.runtime,
            "review_below": self.review_below,
            "run_id": self.run_id,
            "run_page": self.run_page,
        }


def loaded(reference: str | None, settings: ServeSettings, tracking_uri: str | None) -> LoadedModel:
    """Load a model into this process.

    Args:
        reference: As `newsbert.load` takes it.
        settings: Its runtime, and the score below which a person has to see an answer.
        tracking_uri: MLflow's; as configured if not given.

    Raises:
        NewsbertError: If there is no such model, or it is not what training wrote.
    """
    located = locate.locate(reference, tracking_uri=tracking_uri)
    model = Model.from_directory(located.path, located.name, settings.runtime, settings.review_below)
    page = None if located.run_id is None else _page_of(located.run_id, tracking_uri)
    return LoadedModel(model, model.runtime, model.review_below, located.run_id, page)


def served(url: str) -> LoadedModel:
    """Ask a served model for its name.

    Raises:
        NewsbertError: If no newsbert model answers there.
    """
    client = Client(url, RETRY_S)
    client.predict(["newsbert"])  # it has to answer, and to tell its name
    client.name = client.name or url
    return LoadedModel(client)


def _page_of(run_id: str, tracking_uri: str | None) -> str | None:
    """A run's page; a version may come from another server, which has it."""
    try:
        return locate.connect(tracking_uri).page_of(run_id)
    except TrackingError:
        return None
