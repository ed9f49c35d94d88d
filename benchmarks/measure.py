"""Measure servers under load, and runtimes without a server."""

import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import processes
import results
import servers
from load import Plan, Result
from newsbert.core.ports import claim_port
from results import CAPACITY_FRACTIONS, CLIENTS, Agreement, Limit, Run, Visit
from servers import Server, Setting

HERE = Path(__file__).parent
SEED = 20
START_S = 180

Expected = list[dict[str, float]]
"""PyTorch's probabilities by label, for every text."""


@dataclasses.dataclass(frozen=True)
class Length:
    """Length of a load.

    Attributes:
        seconds: Measured time.
        warmup_s: Time before.
        min_answers: Closed loop: minimum number of answers, for at most three times `seconds`.
    """

    seconds: float
    warmup_s: float
    min_answers: int


def generate(plan: Plan) -> Result:
    """Run the load generator."""
    completed = subprocess.run(
        [sys.executable, str(HERE / "load.py")],
        input=json.dumps(dataclasses.asdict(plan)), check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    document = json.loads(completed.stdout)
    document["bodies"] = {int(index): bodies for index, bodies in document["bodies"].items()}
    return Result(**document)


def percentile_ms(latencies_s: list[float], percent: float) -> float:
    """Return a percentile of sorted latencies; NaN if there are none."""
    if not latencies_s:
        return math.nan
    return 1000 * latencies_s[max(0, math.ceil(percent / 100 * len(latencies_s)) - 1)]


def make_run(load: str, plan: Plan, result: Result, server_cpu_s: float) -> Run:
    """Return the measurements of a load."""
    latencies_s = sorted(result.latencies_s)
    answered = max(1, result.answered)
    return Run(
        load=load,
        offered_per_s=plan.rate,
        per_s=len(latencies_s) / result.seconds,
        p50_ms=percentile_ms(latencies_s, 50),
        p99_ms=percentile_ms(latencies_s, 99),
        percentiles_ms=[round(percentile_ms(latencies_s, percent), 3) for percent in range(101)] if latencies_s else [],
        count=len(latencies_s),
        errors=result.errors,
        server_cpu_ms=1000 * server_cpu_s / answered,
        generator_cpu_ms=1000 * result.cpu_s / answered,
        late_ms=1000 * result.late_s,
        connections=result.connections,
        reopened=result.reopened,
    )


def compare(server: Server, result: Result, expected: Expected, agreement: Agreement) -> int:
    """Compare answers with PyTorch's, and return the number of unreadable ones."""
    num_unreadable = 0
    for index, bodies in result.bodies.items():
        for body in bodies:
            try:
                label, probabilities = server.answer(body)
            except ValueError:
                num_unreadable += 1
                continue
            agreement.compared += 1
            agreement.same += label == max(expected[index], key=expected[index].__getitem__)
            if probabilities is not None:
                difference = max(abs(probabilities[name] - value) for name, value in expected[index].items())
                agreement.max_difference = max(difference, agreement.max_difference or 0.0)
    return num_unreadable


def visit(server: Server, setting: Setting, texts: list[str], expected: Expected, length: Length) -> Visit:
    """Start a server, measure it under every load, and stop it."""
    result = Visit()
    requests = [server.request(text) for text in texts]
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-", ignore_cleanup_errors=True) as name:
        work = Path(name)
        port = claim_port("127.0.0.1", 0)
        command = server.command(setting, port, work)
        environment = {**servers.environment(setting), **server.environment}
        with processes.started(command, environment, work) as root:
            try:
                result.start_s = processes.wait_until(lambda: is_ready(server, port, texts[0]), root, work, START_S)
                plan = Plan(port=port, requests=requests, seconds=length.seconds, warmup_s=length.warmup_s)
                generate(dataclasses.replace(plan, clients=8, seconds=length.warmup_s))

                def measure(load: str, plan: Plan) -> Run:
                    before_s = processes.cpu_s(root)
                    answers = generate(plan)
                    run = make_run(load, plan, answers, processes.cpu_s(root) - before_s)
                    if unreadable := compare(server, answers, expected, result.agreement):
                        run.errors["unreadable"] = unreadable
                    result.runs.append(run)
                    log(f"  {load:>4}: {run.per_s:.0f}/s, p50 {run.p50_ms:.1f} ms, p99 {run.p99_ms:.1f} ms, "
                        f"{run.count} answers, errors {run.errors or 'none'}")  # fmt: skip
                    return run

                rates = [
                    measure(
                        str(clients), dataclasses.replace(plan, clients=clients, min_answers=length.min_answers)
                    ).per_s
                    for clients in CLIENTS
                ]
                for fraction in CAPACITY_FRACTIONS:
                    rate = fraction * max(rates)
                    if rate:
                        measure(results.open_load(fraction), dataclasses.replace(plan, rate=rate, seed=SEED))
                result.memory_bytes = processes.memory_bytes(root)
                result.processes = len(processes.tree(root))
            except (processes.DidNotStartError, subprocess.CalledProcessError) as error:
                result.failure = f"{error}\n{processes.last_lines(work)}"
                log(f"  {result.failure}")
    return result


def is_ready(server: Server, port: int, text: str) -> bool:
    """Return whether a request gets a readable answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{server.path}",
        server.make_body(text).encode(),
        {"Content-Type": server.content_type, "Accept": "*/*"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            server.answer(response.read().decode("latin-1"))
            return True
    except (OSError, ValueError, urllib.error.HTTPError):
        return False


def offline(runtime: str, setting: Setting, texts: list[str], seconds: float, limit: Limit) -> Expected:
    """Measure a runtime alone, and return its probabilities."""
    arguments = [str(setting.bundle.path), runtime, str(setting.threads), str(seconds)]
    completed = subprocess.run(
        [sys.executable, str(HERE / "offline.py"), *arguments], env={**os.environ, **servers.environment(setting)},
        input=json.dumps(texts), check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    document = json.loads(completed.stdout)
    latencies_s = sorted(document["latencies_s"])
    limit.single_per_s.append(len(latencies_s) / sum(latencies_s))
    limit.p50_ms.append(percentile_ms(latencies_s, 50))
    limit.p99_ms.append(percentile_ms(latencies_s, 99))
    limit.many_per_s.append(results.median(document["many_per_s"]))
    limit.memory_bytes.append(document["memory_bytes"])
    log(f"  one at a time {limit.single_per_s[-1]:.0f}/s, all {limit.many_per_s[-1]:.0f}/s")
    return [dict(zip(setting.bundle.contract.labels, row, strict=True)) for row in document["probabilities"]]


def measure_generator(texts: list[str], seconds: float) -> list[Run]:
    """Measure the load generator with a server that does nothing."""
    echo = Server(
        key="",
        name="",
        command=lambda setting, port, work: [],
        path="/predict",
        make_body=lambda text: json.dumps({"text": text}),
        parse=lambda document: document["probabilities"],
    )
    port = claim_port("127.0.0.1", 0)
    plan = Plan(port=port, requests=[echo.request(text) for text in texts], seconds=seconds, warmup_s=0.5)
    runs = []
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as name:
        work = Path(name)
        with processes.started([sys.executable, str(HERE / "echo.py"), str(port)], {}, work) as root:
            processes.wait_until(lambda: is_ready(echo, port, "x"), root, work, 10)
            for clients in CLIENTS:
                closed = dataclasses.replace(plan, clients=clients)
                runs.append(make_run(str(clients), closed, generate(closed), 0.0))
            opened = dataclasses.replace(plan, rate=500)
            runs.append(make_run("open", opened, generate(opened), 0.0))
    return runs


def log(line: str) -> None:
    """Print progress."""
    print(line, file=sys.stderr, flush=True)
