"""Output of the commands: results on stdout, everything else on stderr, as text or as JSON."""

import codecs
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from newsbert.core.terminal import show_controls
from newsbert.core.uris import mask_credentials
from newsbert.errors import NewsbertError

if TYPE_CHECKING:
    from newsbert.images.engine.layers import Layer
    from newsbert.serving.server_events import ServerEvent

LONG_WORD = 20
"""Length in terminal cells above which a table may break a word."""

LOG_INTERVAL_S = 3.0

UNLIMITED_COLUMNS = 1_000_000


class Output:
    """Writer of a command's result, progress and errors.

    Args:
        as_json: Write one JSON document to stdout instead of text and tables.
        log_format: `json` for one JSON object per line on stderr instead of text.
    """

    def __init__(self, as_json: bool = False, log_format: str = "text") -> None:
        self.as_json = as_json
        self.log_format = log_format
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)
        # A chunk of a container's output may end in the middle of a character.
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decode_output, self._decode_log = decoder("replace").decode, decoder("replace").decode

    @property
    def is_terminal(self) -> bool:
        """True if stdout is a terminal: a person sees the result, and no file or log stores it."""
        return sys.stdout is not None and sys.stdout.isatty()

    def document(self, document: Any) -> None:
        """Write the one JSON document."""
        print(json.dumps(document, ensure_ascii=True, indent=2))  # noqa: T201

    def result(self, text: str) -> None:
        """Write a line of the result."""
        print(show_controls(text))  # noqa: T201

    def help(self, context: typer.Context) -> None:
        """Write a command's help."""
        text = context.get_help()
        if text:  # typer prints the help itself when it renders with rich
            self.result(text)

    def console(self) -> Console:
        """Return the console of stdout: as wide as the terminal, or as COLUMNS; a pipe or a file has no width."""
        is_limited = self.is_terminal or os.environ.get("COLUMNS")
        return Console(highlight=False, width=None if is_limited else UNLIMITED_COLUMNS)

    def table(
        self, headers: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None, words: int = 1
    ) -> None:
        """Write a table of the result, if it has rows.

        The first `words` columns hold text, the others numbers. If the terminal is too narrow for whole words, a row
        becomes a list of headers and cells.
        """
        console = self.console()
        headers = [show_controls(header) for header in headers]
        cells = [[show_controls(cell) for cell in row] for row in rows]
        if not cells:
            return
        min_widths = _min_column_widths([headers, *cells])
        fits = sum(width + 3 for width in min_widths) + 1 <= console.width
        table = _build_wide_table(headers, cells, words, min_widths) if fits else _build_narrow_table(headers, cells)
        table.title = title and escape(show_controls(title))
        table.title_justify, table.title_style = "left", "bold"
        console.print(table)

    def raw(self, output: bytes) -> None:
        """Forward the result that another newsbert process wrote."""
        print(show_controls(self._decode_output(output)), end="", flush=True)  # noqa: T201

    def raw_log(self, log: bytes) -> None:
        """Forward the log that another newsbert process wrote."""
        print(show_controls(self._decode_log(log)), end="", file=sys.stderr, flush=True)  # noqa: T201

    def log(self, text: str) -> None:
        """Write a log message."""
        if self.log_format == "json":
            self.event("log", text)
        else:
            self.err.print(_sanitize(text))

    def event(self, event: str, message: str, level: str = "INFO", **details: Any) -> None:
        """Log an event as a JSON object on one line."""
        from newsbert.serving.server_events import ServerEvent

        self._line(ServerEvent(event, mask_credentials(message), level, details=details).json())

    def problem(self, problem: "ServerEvent") -> None:
        """Log a problem of a server on one line."""
        self._line(problem.json() if self.log_format == "json" else problem.text())

    def _line(self, line: str) -> None:
        print(show_controls(line), file=sys.stderr, flush=True)  # noqa: T201

    def note(self, text: str) -> None:
        """Write a note to the user."""
        self.err.print(f"[yellow]Note:[/yellow] {_sanitize(text)}")

    def next_command(self, command: str) -> None:
        """Show the command to run next."""
        self.err.print(f"[dim]Next:[/dim] {_sanitize(command)}")

    def error(self, error: NewsbertError, debug: bool = False) -> None:
        """Report an error that the user can act on."""
        if debug:
            self.traceback(error)
        message, hint = mask_credentials(error.message), error.hint and mask_credentials(error.hint)
        if self.as_json:
            self.document({"error": {**error.document(), "message": message, "hint": hint}})
        if self.log_format == "json":
            self.event(error.code, message, "ERROR", hint=hint)
            return
        for note in getattr(error, "__notes__", ()):
            self.note(note)
        # One line per message, even if a library's message or a path contains line breaks.
        self.err.print(f"[bold red]Error:[/bold red] {_sanitize(' '.join(message.splitlines()))}")
        if hint:
            self.err.print(f"[bold]Hint:[/bold] {_sanitize(' '.join(hint.splitlines()))}")
        if error.examined:
            self.err.print("[bold]Hint:[/bold] newsbert doctor")

    def traceback(self, error: BaseException) -> None:
        """Write an error's traceback, with credentials masked.

        Messages of libraries may contain the URIs that they were called with.
        """
        self._line(mask_credentials("".join(traceback.format_exception(error))).rstrip())

    def unexpected(self, error: Exception) -> None:
        """Write the JSON document of an unexpected error."""
        message = mask_credentials(f"{type(error).__name__}: {error}")
        hint = "report it, with the traceback on standard error"
        self.document({"error": {"code": "unexpected", "message": message, "hint": hint}})

    @contextmanager
    def progress(self) -> "Iterator[Progress]":
        """Show a progress bar on a terminal, or log a line every few seconds elsewhere."""
        progress = Progress(self)
        try:
            yield progress
        finally:
            progress.close()


def _sanitize(text: str) -> str:
    """Mask credentials, and escape the markup of rich and the control characters of terminals."""
    return escape(show_controls(mask_credentials(text)))


def _build_wide_table(headers: Sequence[str], rows: Iterable[Sequence[str]], words: int, least: Sequence[int]) -> Table:
    table = Table(header_style="bold")
    for index, (header, width) in enumerate(zip(headers, least, strict=True)):
        table.add_column(
            escape(header), justify="right" if index >= words else "left", overflow="fold", min_width=width
        )
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _build_narrow_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(show_header=False)
    table.add_column(style="bold", overflow="fold")
    table.add_column(overflow="fold")
    for row in rows:
        for header, cell in zip(headers, row, strict=True):
            table.add_row(escape(header), escape(cell))
        table.add_section()
    return table


def _min_column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the column widths, in terminal cells, at which no word breaks that has at most `LONG_WORD` cells."""
    return [
        max((min(cell_len(word), LONG_WORD) for cell in column for word in cell.split()), default=0)
        for column in zip(*rows, strict=True)
    ]


class Progress:
    """Progress display of a command.

    Args:
        output: The command's output.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._last = 0.0
        self._bar: Any = None
        self._task: Any = None
        if output.err.is_terminal:
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[detail]}"),
                console=output.err,
                transient=True,
            )

    def phase(self, name: str) -> None:
        """Show that a new phase of the work begins."""
        if self._bar is None:
            self._output.log(f"{name} …")
        else:
            self._show(name, 0, None, "")

    def update(self, name: str, done: int, total: int, details: Mapping[str, str]) -> None:
        """Show the completed part of a phase, with details such as the loss."""
        if self._bar is not None:
            summary = "  ".join([f"{done}/{total}", *(f"{key} {value}" for key, value in details.items())])
            self._show(name, done, total, summary)
        elif done == total or time.monotonic() - self._last >= LOG_INTERVAL_S:
            self._last = time.monotonic()
            summary = ", ".join(f"{key} {value}" for key, value in details.items())
            self._output.log(f"{name} {done}/{total}{', ' if summary else ''}{summary}")

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def _show(self, name: str, done: int, total: int | None, detail: str) -> None:
        if self._task is None:
            self._task = self._bar.add_task("", total=total, detail="")
            self._bar.start()
        self._bar.update(self._task, description=_sanitize(name), completed=done, total=total, detail=_sanitize(detail))


def duration(seconds: float) -> str:
    """Format seconds: `42 s`, `3:07 min`, `1:02 h`."""
    if math.isnan(seconds):  # not known yet
        return "…"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


def layer_rows(layers: "Sequence[Layer]") -> list[list[str]]:
    """Return table rows of an image's layers and their sizes, with the total as the last row."""
    rows = [[shorten(layer.step, 60, placeholder=" …"), size(layer.size_bytes)] for layer in layers]
    return [*rows, ["all", size(sum(layer.size_bytes for layer in layers))]]


def size(size_bytes: int) -> str:
    """Format a number of bytes: `1.2 kB`, `89.4 MB`."""
    if size_bytes < 1e6:
        return f"{size_bytes / 1e3:.1f} kB"
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes < 1e9 else f"{size_bytes / 1e9:.2f} GB"
