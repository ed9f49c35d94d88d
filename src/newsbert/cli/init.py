"""`newsbert init`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newsbert.cli._completion import files
from newsbert.cli._options import Debug, Json, ModelName, setting
from newsbert.cli._output import Output
from newsbert.core import config, config_file
from newsbert.core.identifiers import parse_model_name
from newsbert.core.settings import TrainSettings

if TYPE_CHECKING:
    from newsbert.data.profile import DatasetProfile

EXAMPLES = """
Examples:

    newsbert init

    newsbert init news.csv

    newsbert init rows.jsonl.gz --labels World,Sports,Business,Sci/Tech --model-name BertModel
"""


def init(
    data: Annotated[
        str, typer.Argument(help=str(config.help_of(TrainSettings, "data")), metavar="DATA", autocompletion=files)
    ] = TrainSettings.data,
    labels: Annotated[str | None, setting(TrainSettings, "labels", metavar="A,B,…")] = None,
    text_column: Annotated[str | None, setting(TrainSettings, "text_column", metavar="NAME")] = None,
    label_column: Annotated[str | None, setting(TrainSettings, "label_column", metavar="NAME")] = None,
    model_name: ModelName = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a newsbert.toml that is there.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Profile labelled rows, and write newsbert.toml for them.

    Columns of texts and labels are guessed if they have no usual names. The profile shows what to check before
    training: classes with few rows, duplicates, conflicting labels, and training rows among the test rows.
    """
    screen = Output(as_json)
    from newsbert.api import init_config

    file = Path(config_file.CONFIG_FILE)
    init_config.check_absent(file, force=force)
    names = tuple(name.strip() for name in labels.split(",")) if labels else ()
    model_name = model_name or init_config.suggested_name(data)
    parse_model_name(model_name)
    profile = init_config.survey(data, names, text_column, label_column)
    init_config.write(profile, model_name, file, names, force=force)
    if screen.as_json:
        screen.document({"file": str(file), "model_name": model_name, **dataclasses.asdict(profile)})
        return
    _render(screen, profile)
    for note in profile.notes:
        screen.note(note)
    screen.log(f"{file} is written")
    screen.next_command("newsbert train")


def _render(screen: Output, profile: "DatasetProfile") -> None:
    splits = list(profile.rows)
    names = list(next(iter(profile.rows.values())))
    rows = [[name, *(str(profile.rows[split][name]) for split in splits)] for name in names]
    totals = ["sum", *(str(sum(profile.rows[split].values())) for split in splits)]
    screen.result(f"columns    {', '.join(profile.columns)}")
    screen.table(["label", *splits], [*rows, totals])
    for kind, column in {"text": profile.text_column, "label": profile.label_column}.items():
        if column is not None:
            screen.result(f"{kind:10} {column}")
    token_counts = [f"{percentile} {count}" for percentile, count in profile.tokens.items()]
    screen.result(f"tokens     {', '.join(token_counts)}; {profile.max_length} are read")
