"""The models that a playground shows: loaded in this process, or served."""

from dataclasses import dataclass

from newsbert.core.settings import ServeSettings
from newsbert.errors import TrackingError
from newsbert.inference.model import Model
from newsbert.serving.client import Client
from newsbert.tracking import locate

RETRY_S = 5.0
"""Time in which a failed request to a server is retried; short, since a person waits."""


@dataclass(frozen=True)
class LoadedModel:
    """A model on the page.

    Attributes:
        predictor: The model or the client that predicts.
        runtime: Name of the runtime that computes the answers, if known.
        review_threshold: The score below which an answer needs a review, if known.
        run_id: The MLflow run that trained it, if known.
        run_page: URL of the run's page, if a tracking server has one.
    """

    predictor: Model | Client
    runtime: str | None = None
    review_threshold: float | None = None
    run_id: str | None = None
    run_page: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the JSON object for the page."""
        return {
            "name": self.predictor.name,
            "runtime": self.runtime,
            "review_threshold": self.review_threshold,
            "run_id": self.run_id,
            "run_page": self.run_page,
        }


def loaded(reference: str | None, settings: ServeSettings, tracking_uri: str | None) -> LoadedModel:
    """Load a model into this process.

    Args:
        reference: A reference for `newsbert.load`.
        settings: Its runtime, and the score below which an answer needs a review.
        tracking_uri: MLflow's tracking URI; the configured one if `None`.

    Raises:
        NewsbertError: If there is no such model, or it differs from what training wrote.
    """
    located = locate.locate(reference, tracking_uri=tracking_uri)
    model = Model.from_directory(
        located.path, located.name, settings.runtime, settings.review_threshold, cascade=settings.cascade
    )
    page = None if located.run_id is None else _find_run_page(located.run_id, tracking_uri)
    return LoadedModel(model, model.runtime, model.review_threshold, located.run_id, page)


def served(url: str) -> LoadedModel:
    """Connect to a served model, and read its name.

    Raises:
        NewsbertError: If no newsbert model answers there.
    """
    client = Client(url, RETRY_S)
    client.predict(["newsbert"])  # checks that it answers, and reads its name
    client.name = client.name or url
    return LoadedModel(client)


def _find_run_page(run_id: str, tracking_uri: str | None) -> str | None:
    """Return a run's page; `None` if this tracking server cannot give it: the run may be on another one."""
    try:
        return locate.connect(tracking_uri).page_of(run_id)
    except TrackingError:
        return None
