"""Training runs and what became of them: scores, and the versions that were registered from them."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from newsbert.core.identifiers import parse_time
from newsbert.tracking.runs import DATA_DIGEST_TAG

if TYPE_CHECKING:
    from newsbert.tracking.client import TrackingClient


@dataclass(frozen=True)
class TrainingRun:
    """A training run.

    Attributes:
        run_id: Its id.
        status: MLflow's word, in small letters: `running`, `finished`, `failed` or `killed`.
        started: When it began.
        ended: When it ended, if it has.
        params: Its resolved configuration.
        metrics: The last value of everything that was logged, but for what the machine did meanwhile.
        tags: What newsbert noted with it.
        versions: Names of the versions registered from it, such as `BertModel/2`, with their aliases.
    """

    run_id: str
    status: str
    started: datetime
    ended: datetime | None
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    versions: dict[str, list[str]]


def training_runs(tracker: "TrackingClient", most: int) -> list[TrainingRun]:
    """The training runs of the tracker's experiment, `most` of them at most, the latest first.

    Raises:
        TrackingError: If the server refuses.
    """
    found = tracker.runs(f"tags.`{DATA_DIGEST_TAG}` LIKE '%'", most)
    versions: dict[str, dict[str, list[str]]] = defaultdict(dict)
    run_ids = {run.info.run_id for run in found}
    registered = [version for version in tracker.versions() if version.run_id in run_ids] if found else []
    aliases = {name: tracker.aliases(name) for name in {version.name for version in registered}}
    for version in registered:
        number = str(version.version)
        pointing = sorted(alias for alias, target in aliases[version.name].items() if target == number)
        versions[version.run_id or ""][f"{version.name}/{number}"] = pointing
    return [
        TrainingRun(
            run.info.run_id,
            run.info.status.lower(),
            parse_time(run.info.start_time),
            parse_time(run.info.end_time) if run.info.end_time else None,
            run.data.params,
            {name: value for name, value in run.data.metrics.items() if not name.startswith("system/")},
            {name: value for name, value in run.data.tags.items() if name.startswith("newsbert.")},
            versions[run.info.run_id],
        )
        for run in found
    ]
