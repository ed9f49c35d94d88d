"""Plots of the compared servers; readable without colour."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results import CAPACITY_FRACTIONS, CLIENTS, Limit, Measured, median, open_load, p50_ms, p99_ms, per_s

_SHADES = {1: "#c6d5e3", 8: "#6f9abf", 64: "#17375e"}
_OURS, _PEER = "#b5400b", "#17375e"
_LINES = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))


def draw(servers: Sequence[Measured], limits: dict[str, Limit], directory: Path, note: str) -> list[Path]:
    """Draw `serving_throughput.png` and `serving_latency.png` into `directory` and return their paths."""
    import matplotlib

    matplotlib.use("Agg")
    measured = [server for server in servers if any(visit.runs for visit in server.visits)]
    return [
        _throughput(measured, limits, directory / "serving_throughput.png", note),
        _latency(measured, directory / "serving_latency.png", note),
    ]


def _throughput(servers: Sequence[Measured], limits: dict[str, Limit], file: Path, note: str) -> Path:
    """Draw answers per second by server and number of clients, and the limits."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 1.6 + 0.62 * len(servers)), layout="constrained")
    height = 0.26
    for offset, clients in zip((-1, 0, 1), CLIENTS, strict=True):
        rates = [server.median(str(clients), per_s) for server in servers]
        places = [place + offset * height for place in range(len(servers))]
        label = f"{clients} client{'s' if clients > 1 else ''}"
        axes.barh(
            places, [0 if math.isnan(rate) else rate for rate in rates], height,
            color=_SHADES[clients], edgecolor="#17375e", linewidth=0.5, label=label,
        )  # fmt: skip
        for place, rate in zip(places, rates, strict=True):
            if not math.isnan(rate):
                axes.text(rate, place, f" {rate:.0f}", va="center", fontsize=7)
    for style, (name, limit) in zip(_LINES, limits.items(), strict=False):
        if limit.many_per_s:
            rate = median(limit.many_per_s)
            axes.axvline(
                rate, color="black", linestyle=style, linewidth=1.2, label=f"limit: {name} without a server, {rate:.0f}"
            )
    _servers_axis(axes, servers)
    axes.set_xlabel("texts answered per second (more is better)", fontsize=8)
    axes.margins(x=0.08)
    axes.set_xlim(left=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="x", labelsize=8)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    axes.set_title(f"Throughput in closed loops; {note}", fontsize=9, loc="left")
    figure.savefig(file, dpi=140)
    pyplot.close(figure)
    return file


def _latency(servers: Sequence[Measured], file: Path, note: str) -> Path:
    """Draw latencies by server, median to 99th percentile: one client, and requests at random times."""
    from matplotlib import pyplot
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, NullFormatter

    panels = [("1", "1 client")]
    panels += [(open_load(part), f"random arrivals,\n{part:.0%} of its capacity") for part in CAPACITY_FRACTIONS]
    figure, row = pyplot.subplots(
        1, len(panels), sharex=True, sharey=True, figsize=(10, 1.7 + 0.34 * len(servers)), layout="constrained"
    )
    for axes, (load, title) in zip(row, panels, strict=True):
        for place, server in enumerate(servers):
            middle, late = server.median(load, p50_ms), server.median(load, p99_ms)
            if math.isnan(middle):
                continue
            color = _OURS if server.runtime else _PEER
            axes.plot([middle, late], [place, place], color=color, linewidth=1.5)
            axes.plot(middle, place, "o", color=color, markersize=6)
            axes.plot(late, place, "|", color=color, markersize=11, markeredgewidth=2)
            axes.annotate(
                f"{_ms(middle)} · {_ms(late)}", (late, place), (6, 0), textcoords="offset points",
                va="center", fontsize=7,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("ms (less is better)", fontsize=8)
        axes.grid(axis="x", which="major", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:g}" if value < 1000 else f"{value / 1000:g} s")
        )
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    left, right = row[0].get_xlim()
    row[0].set_xlim(left, right * (right / left) ** 0.4)  # room for the numbers
    _servers_axis(row[0], servers)
    marks = [
        Line2D([], [], marker="o", color="black", linestyle="none", label="median"),
        Line2D([], [], marker="|", color="black", linestyle="none", markersize=11, label="99th percentile"),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.suptitle(f"Latency; {note}", fontsize=9, x=0.01, ha="left")
    figure.savefig(file, dpi=140)
    pyplot.close(figure)
    return file


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}"


def _servers_axis(axes: Any, servers: Sequence[Measured]) -> None:
    """Label the rows, the first at the top; newsbert in bold."""
    axes.set_yticks(range(len(servers)), [f"{server.name} ({server.key[0]})" for server in servers])
    for label, server in zip(axes.get_yticklabels(), servers, strict=True):
        label.set_fontweight("bold" if server.runtime else "normal")
    axes.tick_params(labelsize=8)
    axes.set_ylim(len(servers) - 0.5, -0.5)
    axes.spines[["top", "right"]].set_visible(False)
