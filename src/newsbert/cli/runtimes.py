"""`newsbert runtimes`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from newsbert.cli._options import Debug, Json, Model, TrackingUri
from newsbert.cli._output import Output, size

EXAMPLES = """
Examples:

    newsbert runtimes BertModel/2

    newsbert runtimes BertModel/2 --texts news.jsonl --only onnxruntime --only openvino-int8
"""
_MOST_TEXTS = 256


def runtimes(
    model: Model = None,
    texts: Annotated[
        Path | None,
        typer.Option(help="Rows to classify, the first 256 of them.", show_default="items that come with newsbert"),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="A runtime, instead of all of them.", metavar="NAME", show_default=False)
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long each is measured, in both ways.", min=0.1)] = 2.0,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare what can compute a model's answers, on this machine; `serve --runtime NAME` takes one of them."""
    screen = Output(as_json)
    from newsbert.bundle.bundle import Bundle, files_of
    from newsbert.core import cpu
    from newsbert.data import dataset
    from newsbert.inference import benchmark
    from newsbert.tracking import locate

    for name in only or []:
        files_of(name)
    located = locate.locate(model, tracking_uri=tracking_uri)
    bundle = Bundle.read(located.path)
    bundle.verify()
    items = dataset.texts(texts)[:_MOST_TEXTS]
    screen.log(f"{located.name}: {len(items)} texts, {cpu.cores()} threads")
    reference, expected = benchmark.reference(bundle, items)
    measured = []
    for each in benchmark.compare(bundle, items, expected, only or (), seconds):
        measured.append(each)
        screen.log(f"{each.name}: {each.problem or f'{each.texts_per_s:.0f} texts/s'}")
    if screen.as_json:
        screen.document(
            {
                "model": located.name,
                "texts": len(items),
                "threads": cpu.cores(),
                "reference": reference,
                "runtimes": [dataclasses.asdict(each) for each in measured],
                "graphs": {
                    name: {key: value for key, value in dataclasses.asdict(graph).items() if key != "golden"}
                    for name, graph in bundle.contract.graphs.items()
                },
            }
        )
        return
    screen.table(
        ["name", "texts/s", "p50 ms", "p99 ms", "size", "same label", "off by", "in batches"],
        [
            [
                each.name,
                f"{each.texts_per_s:.0f}",
                f"{1000 * each.p50_s:.1f}",
                f"{1000 * each.p99_s:.1f}",
                size(each.size_bytes),
                f"{100 * each.agreement:.1f}%",
                f"{each.max_difference:.0e}",
                f"{each.batch_difference:.0e}",
            ]
            for each in sorted(measured, key=lambda each: -each.texts_per_s)
            if not each.problem
        ],
    )
    screen.note(
        f"same label, off by: compared with {reference}; in batches: a text alone compared with it among others"
    )
    for each in measured:
        if each.chosen:
            screen.note(f"chosen where none is named: {each.name}")
    for each in measured:
        if each.problem:
            screen.note(f"{each.name}: {each.problem}")
    for name, graph in bundle.contract.graphs.items():
        if graph.rows:
            screen.note(
                f"{name} in training: {100 * graph.agreement:.1f}% of {graph.rows} validation rows got PyTorch's "
                f"label, {round(-graph.accuracy_loss, 2) + 0.0:+.2f} points of accuracy"  # never -0.00
            )
