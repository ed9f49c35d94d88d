"""How newsbert serves, next to what else one would serve the same model with, and to the limit of its runtimes.

Every server gets the same fine-tuned weights, texts, processor cores, threads and load: the reference's handler on
TorchServe, FastAPI with a pipeline, LitServe, BentoML, `mlflow models serve`, and newsbert on each runtime that the
bundle has; the peers also with the bundle's ONNX graph. One runs at a time; in every round each is started anew. Texts
are cleaned beforehand, so that those who do not clean are asked the same. The peers' packages (`peers.txt`) are
installed into an environment of their own in the cache directory, once.

    python benchmarks/serving.py BUNDLE TEXTS.jsonl.gz
    python benchmarks/serving.py BUNDLE TEXTS.jsonl.gz --only a,f --quick
    python benchmarks/serving.py BUNDLE TEXTS.jsonl.gz --output benchmarks/results

Prints the tables; `--output` also writes `serving.json`, with all figures, and the plots.
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
from measure import SEED, Length, ceiling, log, offline, visit
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
    """What was asked for on the command line."""

    bundle: Path
    texts: Path
    only: list[str]
    runtimes: list[str]
    graph: str
    count: int
    rounds: int
    seconds: float
    warmup_s: float
    least: int
    threads: int
    torch_index: str
    output: Path | None


def options() -> Options:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path, help="a trained bundle's directory")
    parser.add_argument("texts", type=Path, help='rows with a "text", .jsonl or .jsonl.gz')
    parser.add_argument("--only", default="", help="letters or keys of servers, such as a,c-onnx,f,g (default: all)")
    parser.add_argument("--runtimes", default="", help="of ours and of the limit (default: ONNX Runtime's)")
    parser.add_argument(
        "--graph", default="", help="what the peers answer with where they use our graph (default: ours)"
    )
    parser.add_argument("--count", type=int, default=1000, help="texts, drawn by a fixed seed")
    parser.add_argument("--rounds", type=int, default=3, help="how often each server is started and measured")
    parser.add_argument("--seconds", type=float, default=10, help="of each load")
    parser.add_argument("--threads", type=int, default=min(2, cpu.cores()), help="and cores, for everything")
    parser.add_argument("--torch-index", default="", help="package index of the peers' torch, if not pip's own")
    parser.add_argument("--output", type=Path, help="directory for serving.json and the plots")
    parser.add_argument("--quick", action="store_true", help="one round of 2 s: to see that it works, not for figures")
    given = parser.parse_args()
    bundle = Bundle.read(given.bundle)
    return Options(
        bundle=given.bundle.resolve(),
        texts=given.texts,
        only=[each for each in given.only.split(",") if each],
        runtimes=given.runtimes.split(",") if given.runtimes else servers.runtimes_of(bundle),
        graph=given.graph or files_of(runtimes.resolve_runtime(bundle))[0],
        count=min(given.count, 100) if given.quick else given.count,
        rounds=1 if given.quick else given.rounds,
        seconds=2 if given.quick else given.seconds,
        warmup_s=0.5 if given.quick else 2,
        least=0 if given.quick else 200,
        threads=given.threads,
        torch_index=given.torch_index,
        output=given.output,
    )


def wanted(key: str, only: list[str]) -> bool:
    """Tell whether a server is to be measured: all are, or those whose letter or key is named."""
    return not only or key in only or key.partition("-")[0] in only


def read_texts(file: Path, count: int, cleaning: tuple[str, ...]) -> list[str]:
    """Draw texts from a file of rows, cleaned."""
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        rows = [json.loads(line)["text"] for line in lines]
    return [preprocess(row, cleaning) for row in random.Random(SEED).sample(rows, min(count, len(rows)))]


def machine(options: Options) -> dict[str, object]:
    """What it was measured on and with."""
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


def report(
    asked: Options, described: dict[str, object], echo: list[Run], measured: list[Measured], limits: dict[str, Limit]
) -> None:
    """Print what was measured, as the README has it."""
    by_clients = ", ".join(f"{run.per_s:.0f}/s with {run.load}" for run in echo if run.load.isdigit())
    (opened,) = (run for run in echo if run.load == "open")
    print(
        f"{described['cpu']}, {asked.threads} cores for server and load generator together, {asked.threads} threads\n"
        f"for torch, OpenMP and ONNX Runtime in every server; {asked.count} texts;\n"
        f"medians (range) of {asked.rounds} rounds, {asked.seconds:g} s for each load.\n"
        f"Of a server that does nothing the load generator gets {by_clients} clients;\n"
        f"asking it {opened.offered_per_s:.0f}/s at random times, p50 is {opened.p50_ms:.2f} ms, "
        f"p99 {opened.p99_ms:.2f} ms. Nothing of it is subtracted.\n"
    )
    tables = [
        make(measured) for make in (results.throughput_table, results.closed_table, results.open_table) if measured
    ]
    tables += [results.limit_table(limits)] if limits else []
    print("\n\n".join(filter(None, [*tables, results.target_table(measured, limits)])))


def write(
    directory: Path,
    described: dict[str, object],
    echo: list[Run],
    measured: list[Measured],
    limits: dict[str, Limit],
) -> None:
    """Write all figures and the plots."""
    directory.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": described,
        "load_generator": [dataclasses.asdict(run) for run in echo],
        "limits": {name: dataclasses.asdict(limit) for name, limit in limits.items()},
        "servers": [dataclasses.asdict(each) for each in measured],
    }
    file = directory / "serving.json"
    file.write_text(json.dumps(finite(document), indent=1) + "\n", encoding="utf-8")
    log(f"wrote {file}")
    if measured:
        rounds = max(len(each.visits) for each in measured)
        note = f"{described['cores']} cores; {'once' if rounds == 1 else f'median of {rounds} rounds'}"
        for plot in plots.draw(measured, limits, directory, note):
            log(f"wrote {plot}")


def finite(value: Any) -> Any:
    """The same without NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def main() -> None:
    asked = options()
    # The budget: nothing that is started from here, the load generator included, gets any other core.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: asked.threads])
    bundle = Bundle.read(asked.bundle)
    texts = read_texts(asked.texts, asked.count, tuple(bundle.contract.cleaning))
    length = Length(asked.seconds, asked.warmup_s, asked.least)
    described = machine(asked)
    chosen = [each for each in servers.all_servers(asked.runtimes, asked.graph) if wanted(each.key, asked.only)]
    measured = [Measured(each.key, each.name, each.default, each.runtime) for each in chosen]
    limits = {runtime: Limit() for runtime in asked.runtimes if wanted("g", asked.only)}

    peers = (
        environments.programs(HERE / "peers.txt", asked.torch_index)
        if any(each.key[0] in "bcd" for each in chosen)
        else Path()
    )
    log("the load generator alone …")
    echo = ceiling(texts, min(asked.seconds, 3))
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as name:
        setting = Setting(bundle, asked.threads, peers, Path(name) / "models")
        if any(each.key.startswith("e") for each in chosen):
            log("writing the model for MLflow …")
            servers.save_mlflow_models(bundle, setting.mlflow_models)
        log("PyTorch, for the answers to expect …")
        expected = offline("torch", setting, texts, 0.1, Limit())
        for turn in range(1, asked.rounds + 1):
            for runtime, limit in limits.items():
                log(f"round {turn}: {runtime} alone (g)")
                offline(runtime, setting, texts, asked.seconds, limit)
            for server, kept in zip(chosen, measured, strict=True):
                log(f"round {turn}: {server.name} ({server.key})")
                kept.visits.append(visit(server, setting, texts, expected, length))
    report(asked, described, echo, measured, limits)
    if asked.output:
        write(asked.output, described, echo, measured, limits)
    if any(each.failure for kept in measured for each in kept.visits):
        sys.exit(1)


if __name__ == "__main__":
    main()
