"""Compare `newsbert serve locally` with other servers of the same model, and with its runtimes without a server.

All servers have the same fine-tuned weights, texts, processor cores, threads and load: the reference handler on
TorchServe, FastAPI with a pipeline, LitServe, BentoML, `mlflow models serve`, and newsbert on every runtime of the
bundle. The peers also run with the bundle's ONNX graph. Only one server runs at a time; it starts again in every round.
Texts are cleaned first, because not all servers clean them. The peers' packages (`peers.txt`) are installed once, into
a separate environment in the cache directory.

    python benchmarks/serving.py BUNDLE TEXTS.jsonl.gz
    python benchmarks/serving.py BUNDLE TEXTS.jsonl.gz --only a,f --quick
    python benchmarks/serving.py BUNDLE TEXTS.jsonl.gz --output benchmarks/results

The script prints tables. With `--output`, it also writes all measurements (`serving.json`) and the plots.
"""

import argparse
import dataclasses
import gzip
import json
import math
import os
import platform
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

import environments
import plots
import results
import servers
from measure import SEED, Length, log, measure_generator, offline, visit
from newsbert import __version__
from newsbert.bundle.bundle import Bundle, files_of
from newsbert.core import cpu
from newsbert.data.text import preprocess
from newsbert.inference import runtime as runtimes
from results import Limit, Measured, Run
from servers import Setting

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the command line."""

    bundle: Path
    texts: Path
    only: list[str]
    runtimes: list[str]
    graph: str
    count: int
    rounds: int
    seconds: float
    warmup_s: float
    min_answers: int
    threads: int
    torch_index: str
    output: Path | None


def parse_options() -> Options:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path, help="directory of a bundle")
    parser.add_argument("texts", type=Path, help='rows with a "text", .jsonl or .jsonl.gz')
    parser.add_argument("--only", default="", help="letters or keys of servers, such as a,c-onnx,f,g (default: all)")
    parser.add_argument("--runtimes", default="", help="runtimes of newsbert and of the limit (default: all ONNX)")
    parser.add_argument(
        "--graph", default="", help="graph of the bundle for the peers (default: the one of newsbert's default runtime)"
    )
    parser.add_argument("--count", type=int, default=1000, help="number of texts")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds")
    parser.add_argument("--seconds", type=float, default=10, help="seconds of every load")
    parser.add_argument("--threads", type=int, default=min(2, cpu.cores()), help="number of threads and cores")
    parser.add_argument("--torch-index", default="", help="package index of the peers' torch, if not that of pip")
    parser.add_argument("--output", type=Path, help="directory for serving.json and the plots")
    parser.add_argument("--quick", action="store_true", help="one round of 2 s, to test the script")
    arguments = parser.parse_args()
    bundle = Bundle.read(arguments.bundle)
    return Options(
        bundle=arguments.bundle.resolve(),
        texts=arguments.texts,
        only=[key for key in arguments.only.split(",") if key],
        runtimes=arguments.runtimes.split(",") if arguments.runtimes else servers.runtimes_of(bundle),
        graph=arguments.graph or files_of(runtimes.resolve_runtime(bundle))[0],
        count=min(arguments.count, 100) if arguments.quick else arguments.count,
        rounds=1 if arguments.quick else arguments.rounds,
        seconds=2 if arguments.quick else arguments.seconds,
        warmup_s=0.5 if arguments.quick else 2,
        min_answers=0 if arguments.quick else 200,
        threads=arguments.threads,
        torch_index=arguments.torch_index,
        output=arguments.output,
    )


def is_selected(key: str, only: list[str]) -> bool:
    """Return whether a server is selected by its letter or key; without a selection, all are."""
    return not only or key in only or key.partition("-")[0] in only


def read_texts(file: Path, count: int, cleaning: tuple[str, ...]) -> list[str]:
    """Return random texts of a file of rows, cleaned."""
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        rows = [json.loads(line)["text"] for line in lines]
    return [preprocess(row, cleaning) for row in random.Random(SEED).sample(rows, min(count, len(rows)))]


def describe_machine(options: Options) -> dict[str, object]:
    """Describe the machine and the options."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": model[0].partition(": ")[2] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "newsbert": __version__,
        "peers": [line for line in (HERE / "peers.txt").read_text().splitlines() if not line.startswith("#")],
        "options": {key: str(value) for key, value in dataclasses.asdict(options).items()
                    if key not in {"bundle", "texts", "output"}},
    }  # fmt: skip


def print_report(
    options: Options, machine: dict[str, object], echo: list[Run], measured: list[Measured], limits: dict[str, Limit]
) -> None:
    """Print the tables."""
    by_clients = ", ".join(f"{run.per_s:.0f}/s with {run.load}" for run in echo if run.load.isdigit())
    (opened,) = (run for run in echo if run.load == "open")
    print(
        f"{machine['cpu']}, {options.threads} cores for server and load generator together, {options.threads} threads\n"
        f"for torch, OpenMP and ONNX Runtime in every server; {options.count} texts;\n"
        f"medians (range) of {options.rounds} rounds, {options.seconds:g} s per load.\n"
        f"From a server that does nothing, the load generator gets {by_clients} clients.\n"
        f"At {opened.offered_per_s:.0f}/s at random times, its p50 is {opened.p50_ms:.2f} ms, "
        f"and its p99 {opened.p99_ms:.2f} ms. This is not subtracted.\n"
    )
    tables = [
        make(measured) for make in (results.throughput_table, results.closed_table, results.open_table) if measured
    ]
    tables += [results.limit_table(limits)] if limits else []
    print("\n\n".join(filter(None, [*tables, results.target_table(measured, limits)])))


def write(
    directory: Path,
    machine: dict[str, object],
    echo: list[Run],
    measured: list[Measured],
    limits: dict[str, Limit],
) -> None:
    """Write all measurements and the plots."""
    directory.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": machine,
        "load_generator": [dataclasses.asdict(run) for run in echo],
        "limits": {name: dataclasses.asdict(limit) for name, limit in limits.items()},
        "servers": [dataclasses.asdict(server) for server in measured],
    }
    file = directory / "serving.json"
    file.write_text(json.dumps(replace_nan(document), indent=1) + "\n", encoding="utf-8")
    log(f"wrote {file}")
    if measured:
        rounds = max(len(server.visits) for server in measured)
        note = f"{machine['cores']} cores; {'once' if rounds == 1 else f'median of {rounds} rounds'}"
        for plot in plots.draw(measured, limits, directory, note):
            log(f"wrote {plot}")


def replace_nan(value: Any) -> Any:
    """Replace NaN by `None`, because JSON has no NaN."""
    if isinstance(value, dict):
        return {key: replace_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def main() -> None:
    options = parse_options()
    # All processes started from here, also the load generator, get only these cores.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    bundle = Bundle.read(options.bundle)
    texts = read_texts(options.texts, options.count, tuple(bundle.contract.cleaning))
    length = Length(options.seconds, options.warmup_s, options.min_answers)
    machine = describe_machine(options)
    all_servers = servers.all_servers(options.runtimes, options.graph)
    selected = [server for server in all_servers if is_selected(server.key, options.only)]
    measured = [Measured(server.key, server.name, server.default, server.runtime) for server in selected]
    limits = {runtime: Limit() for runtime in options.runtimes if is_selected("g", options.only)}

    peers = (
        environments.install(HERE / "peers.txt", options.torch_index)
        if any(server.key[0] in "bcd" for server in selected)
        else Path()
    )
    log("measuring the load generator …")
    echo = measure_generator(texts, min(options.seconds, 3))
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as name:
        setting = Setting(bundle, options.threads, peers, Path(name) / "models")
        if any(server.key.startswith("e") for server in selected):
            log("writing the model for MLflow …")
            servers.save_mlflow_models(bundle, setting.mlflow_models)
        log("computing the expected answers with PyTorch …")
        expected = offline("torch", setting, texts, 0.1, Limit())
        for turn in range(1, options.rounds + 1):
            for runtime, limit in limits.items():
                log(f"round {turn}: {runtime} without a server (g)")
                offline(runtime, setting, texts, options.seconds, limit)
            for server, measurements in zip(selected, measured, strict=True):
                log(f"round {turn}: {server.name} ({server.key})")
                measurements.visits.append(visit(server, setting, texts, expected, length))
    print_report(options, machine, echo, measured, limits)
    if options.output:
        write(options.output, machine, echo, measured, limits)
    if any(result.failure for server in measured for result in server.visits):
        sys.exit(1)


if __name__ == "__main__":
    main()
