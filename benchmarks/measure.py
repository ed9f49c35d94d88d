"""Putting a load on a server, and on a runtime without one: from what the processes say to figures."""

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
from results import CLIENTS, SHARES, Agreement, Limit, Run, Visit
from servers import Server, Setting

HERE = Path(__file__).parent
SEED = 20
START_S = 180

Expected = list[dict[str, float]]
"""PyTorch's probabilities by label, for each text."""


@dataclasses.dataclass(frozen=True)
class Length:
    """How long a load is put on.

    Attributes:
        seconds: Measured.
        warmup_s: Before.
        least: Closed loop: answers to wait for, for at most three times `seconds`.
    """

    seconds: float
    warmup_s: float
    least: int


def generate(plan: Plan) -> Result:
    """Run the load generator."""
    done = subprocess.run(
        [sys.executable, str(HERE / "load.py")],
        input=json.dumps(dataclasses.asdict(plan)), check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    document = json.loads(done.stdout)
    document["bodies"] = {int(index): bodies for index, bodies in document["bodies"].items()}
    return Result(**document)


def percentile_ms(latencies_s: list[float], percent: float) -> float:
    """The latency that so many percent do not exceed; NaN of none. `latencies_s` is sorted."""
    if not latencies_s:
        return math.nan
    return 1000 * latencies_s[max(0, math.ceil(percent / 100 * len(latencies_s)) - 1)]


def run_of(load: str, plan: Plan, result: Result, server_cpu_s: float) -> Run:
    """The figures of a load."""
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
    """Compare answers with PyTorch's; the number of unreadable ones."""
    unreadable = 0
    for index, bodies in result.bodies.items():
        for body in bodies:
            try:
                label, probabilities = server.answer(body)
            except ValueError:
                unreadable += 1
                continue
            agreement.compared += 1
            agreement.same += label == max(expected[index], key=expected[index].__getitem__)
            if probabilities is not None:
                off = max(abs(probabilities[name] - value) for name, value in expected[index].items())
                agreement.largest = max(off, agreement.largest or 0.0)
    return unreadable


def visit(server: Server, setting: Setting, texts: list[str], expected: Expected, length: Length) -> Visit:
    """Start a server, put every load on it, and stop it."""
    seen = Visit()
    requests = [server.request(text) for text in texts]
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-", ignore_cleanup_errors=True) as name:
        work = Path(name)
        port = claim_port("127.0.0.1", 0)
        command = server.command(setting, port, work)
        given = {**servers.environment(setting), **server.environment}
        with processes.started(command, given, work) as root:
            try:
                seen.start_s = processes.wait_until(lambda: answers(server, port, texts[0]), root, work, START_S)
                plan = Plan(port=port, requests=requests, seconds=length.seconds, warmup_s=length.warmup_s)
                generate(dataclasses.replace(plan, clients=8, seconds=length.warmup_s))

                def measure(load: str, plan: Plan) -> Run:
                    before_s = processes.cpu_s(root)
                    result = generate(plan)
                    run = run_of(load, plan, result, processes.cpu_s(root) - before_s)
                    if unreadable := compare(server, result, expected, seen.agreement):
                        run.errors["unreadable"] = unreadable
                    seen.runs.append(run)
                    log(f"  {load:>4}: {run.per_s:.0f}/s, p50 {run.p50_ms:.1f} ms, p99 {run.p99_ms:.1f} ms, "
                        f"{run.count} answers, errors {run.errors or 'none'}")  # fmt: skip
                    return run

                rates = [
                    measure(str(clients), dataclasses.replace(plan, clients=clients, least=length.least)).per_s
                    for clients in CLIENTS
                ]
                for share in SHARES:
                    rate = share * max(rates)
                    if rate:
                        measure(results.open_load(share), dataclasses.replace(plan, rate=rate, seed=SEED))
                seen.memory_bytes = processes.memory_bytes(root)
                seen.processes = len(processes.tree(root))
            except (processes.DidNotStartError, subprocess.CalledProcessError) as error:
                seen.failure = f"{error}\n{processes.last_lines(work)}"
                log(f"  {seen.failure}")
    return seen


def answers(server: Server, port: int, text: str) -> bool:
    """Ask once; whether there was an answer that can be read."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{server.path}",
        server.ask(text).encode(),
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
    done = subprocess.run(
        [sys.executable, str(HERE / "offline.py"), *arguments], env={**os.environ, **servers.environment(setting)},
        input=json.dumps(texts), check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    document = json.loads(done.stdout)
    latencies_s = sorted(document["latencies_s"])
    limit.one_per_s.append(len(latencies_s) / sum(latencies_s))
    limit.p50_ms.append(percentile_ms(latencies_s, 50))
    limit.p99_ms.append(percentile_ms(latencies_s, 99))
    limit.many_per_s.append(results.median(document["many_per_s"]))
    limit.memory_bytes.append(document["memory_bytes"])
    log(f"  one at a time {limit.one_per_s[-1]:.0f}/s, all {limit.many_per_s[-1]:.0f}/s")
    return [dict(zip(setting.bundle.contract.labels, row, strict=True)) for row in document["probabilities"]]


def ceiling(texts: list[str], seconds: float) -> list[Run]:
    """What the load generator asks of a server that does nothing."""
    nothing = Server(
        key="",
        name="",
        command=lambda setting, port, work: [],
        path="/predict",
        ask=lambda text: json.dumps({"text": text}),
        read=lambda document: document["probabilities"],
    )
    port = claim_port("127.0.0.1", 0)
    plan = Plan(port=port, requests=[nothing.request(text) for text in texts], seconds=seconds, warmup_s=0.5)
    runs = []
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as name:
        work = Path(name)
        with processes.started([sys.executable, str(HERE / "echo.py"), str(port)], {}, work) as root:
            processes.wait_until(lambda: answers(nothing, port, "x"), root, work, 10)
            for clients in CLIENTS:
                closed = dataclasses.replace(plan, clients=clients)
                runs.append(run_of(str(clients), closed, generate(closed), 0.0))
            opened = dataclasses.replace(plan, rate=500)
            runs.append(run_of("open", opened, generate(opened), 0.0))
    return runs


def log(line: str) -> None:
    """Tell how far it is."""
    print(line, file=sys.stderr, flush=True)
