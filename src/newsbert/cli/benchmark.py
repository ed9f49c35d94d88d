"""`newsbert benchmark`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from newsbert.cli._options import Debug, Json, Model, TrackingUri
from newsbert.cli._output import Output, size

EXAMPLES = """
Examples:

    newsbert benchmark BertModel/2

    newsbert benchmark BertModel/2 --texts news.jsonl --only onnxruntime --only openvino-int8
"""
_MAX_TEXTS = 256


def benchmark(
    model: Model = None,
    texts: Annotated[
        Path | None,
        typer.Option(help="Rows to classify, the first 256 of them.", show_default="items that come with newsbert"),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="A runtime, instead of all of them.", metavar="NAME", show_default=False)
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long a runtime is measured, in both ways.", min=0.1)] = 2.0,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare the speed and answers of a model's runtimes.

    The runtimes are measured on this machine. `serve --runtime NAME` uses one of them.
    """
    screen = Output(as_json)
    from newsbert.bundle.bundle import Bundle, files_of
    from newsbert.core import cpu
    from newsbert.data import dataset
    from newsbert.inference import benchmark as benchmarking
    from newsbert.tracking import locate

    for name in only or []:
        files_of(name)
    located = locate.locate(model, tracking_uri=tracking_uri)
    bundle = Bundle.read(located.path)
    bundle.verify()
    items = dataset.read_items(texts, bundle.contract.cleaning)[:_MAX_TEXTS]
    screen.log(f"{located.name}: {len(items)} texts, {cpu.cores()} threads")
    reference, expected = benchmarking.reference(bundle, items)
    measurements = []
    for measurement in benchmarking.compare(bundle, items, expected, only or (), seconds):
        measurements.append(measurement)
        screen.log(f"{measurement.name}: {measurement.problem or f'{measurement.texts_per_s:.0f} texts/s'}")
    if screen.as_json:
        screen.document(
            {
                "model": located.name,
                "texts": len(items),
                "threads": cpu.cores(),
                "reference": reference,
                "runtimes": [dataclasses.asdict(measurement) for measurement in measurements],
                "graphs": {
                    name: {key: value for key, value in dataclasses.asdict(graph).items() if key != "golden"}
                    for name, graph in bundle.contract.graphs.items()
                },
            }
        )
        return
    screen.table(
        ["name", "texts/s", "p50 ms", "p99 ms", "size", "same label", "max diff", "batch diff"],
        [
            [
                measurement.name,
                f"{measurement.texts_per_s:.0f}",
                f"{1000 * measurement.p50_s:.1f}",
                f"{1000 * measurement.p99_s:.1f}",
                size(measurement.size_bytes),
                f"{100 * measurement.agreement:.1f}%",
                f"{measurement.max_difference:.0e}",
                f"{measurement.batch_difference:.0e}",
            ]
            for measurement in sorted(measurements, key=lambda measurement: -measurement.texts_per_s)
            if not measurement.problem
        ],
    )
    screen.note(
        f"same label, max diff: compared with {reference}; batch diff: a text alone compared with it in a batch"
    )
    for measurement in measurements:
        if measurement.chosen:
            screen.note(f"default runtime: {measurement.name}")
    for measurement in measurements:
        if measurement.problem:
            screen.note(f"{measurement.name}: {measurement.problem}")
    for name, graph in bundle.contract.graphs.items():
        if graph.rows:
            screen.note(
                f"{name} in training: {100 * graph.agreement:.1f}% of {graph.rows} validation rows got PyTorch's "
                f"label, {round(-graph.accuracy_loss, 2) + 0.0:+.2f} points of accuracy"  # never -0.00
            )
