"""Training runs with their scores and the versions registered from them."""

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
        status: MLflow's status in lower case: `running`, `finished`, `failed` or `killed`.
        started: Its start time.
        ended: Its end time, if it has ended.
        params: Its resolved configuration.
        metrics: The last value of every logged metric, except for system metrics.
        tags: The tags that newsbert set.
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
    """Return at most `most` training runs of the tracker's experiment, the latest first.

    Raises:
        TrackingError: If the server refuses.
    """
    runs = tracker.runs(f"tags.`{DATA_DIGEST_TAG}` LIKE '%'", most)
    versions: dict[str, dict[str, list[str]]] = defaultdict(dict)
    run_ids = {run.info.run_id for run in runs}
    registered = [version for version in tracker.versions() if version.run_id in run_ids] if runs else []
    aliases = {name: tracker.aliases(name) for name in {version.name for version in registered}}
    for version in registered:
        number = str(version.version)
        version_aliases = sorted(alias for alias, target in aliases[version.name].items() if target == number)
        versions[version.run_id or ""][f"{version.name}/{number}"] = version_aliases
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
        for run in runs
    ]
