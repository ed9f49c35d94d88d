"""The Typer app, `main()` and the only error boundary."""

import io
import itertools
import os
import signal
import sys
from types import ModuleType
from typing import Annotated, Any

import typer

from newsbert.cli import (
    benchmark,
    build_image,
    config,
    deploy,
    doctor,
    environments,
    evaluate,
    explain,
    init,
    inspect_image,
    models,
    pipeline,
    playground,
    predict,
    register,
    rollback,
    runs,
    train,
)
from newsbert.cli._corrections import correct, normalize_option
from newsbert.cli._framework import Commands, Group
from newsbert.cli._output import Output
from newsbert.cli.export import app as export
from newsbert.cli.serve import app as serve
from newsbert.cli.tracking import app as tracking
from newsbert.core.environment import limit_spinning
from newsbert.errors import NewsbertError, UsageError

EXIT_INTERRUPTED = 130
_PARSE_ERROR: Any = typer.BadParameter.__bases__[0]
"""Exception of an invalid command line: Click's `UsageError`, of which typer since 0.26 has its own copy."""

_PANELS: dict[str, tuple[ModuleType, ...]] = {
    "Train": (init, train, evaluate, register, runs, models),
    "Classify": (predict, explain, playground),
    "Serve and deploy": (serve, build_image, deploy, rollback),
    "Set up": (tracking, doctor),
    "Advanced": (benchmark, inspect_image, export, pipeline, environments, config),
}
"""Help panels and their modules; a module is a command of the same name or a group of commands."""


def _name_of(module: ModuleType) -> str:
    return module.__name__.removeprefix("newsbert.cli.").partition(".")[0].replace("_", "-")


class _Root(Group):
    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands in the order of the panels; typer has groups behind all others."""
        return [_name_of(module) for modules in _PANELS.values() for module in modules]


app = Commands(
    cls=_Root,
    name="newsbert",
    help="Train, register, package and serve a news classifier.",
    epilog="Exit codes: 0 done, 1 it could not be done, 2 the call or the configuration is wrong, 130 interrupted.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={
        "help_option_names": ["-h", "--help"],
        # `mlflow run -P learning_rate=2e-5` becomes --learning_rate, and the trainers of transformers accept both.
        "token_normalize_func": lambda name: name.replace("_", "-"),
    },
)

for _panel, _modules in _PANELS.items():
    for _module in _modules:
        if hasattr(_module, "app"):
            app.add_typer(_module.app, name=_name_of(_module), rich_help_panel=_panel)
        else:
            _command = app.command(_name_of(_module), epilog=_module.EXAMPLES, rich_help_panel=_panel)
            _command(getattr(_module, _name_of(_module).replace("-", "_")))


def _print_version(value: bool) -> None:
    if value:
        from newsbert.core.version import __version__

        Output().result(f"newsbert {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        Output().help(context)
        return
    from newsbert.core import temporary

    temporary.sweep_all()


class _Stdout(io.FileIO):
    """Standard output that raises `NewsbertError` if it cannot be written."""

    def write(self, data: Any, /) -> int:
        """Write bytes.

        Raises:
            BrokenPipeError: If the reader closed the pipe.
            NewsbertError: If the bytes cannot be written; later output is discarded.
        """
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            _discard_stdout()
            raise NewsbertError(
                f"standard output cannot be written: {error.strerror}", "send it elsewhere, or make room: df -h"
            ) from error


def _discard_stdout() -> None:
    """Discard the rest of standard output: Python would try to write it again at exit, and report an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def main() -> None:
    """Run the command line and exit with the documented code."""
    # Read from the arguments themselves: the error of an invalid command line must be JSON, too.
    output = Output(as_json="--json" in sys.argv[1:])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Stdout(sys.stdout.fileno(), "w", closefd=False)),
            encoding=sys.stdout.encoding,
            errors="replace",  # a label or text that the terminal's encoding lacks
            line_buffering=True,
        )
    limit_spinning()
    # Like Ctrl+C, so that temporary files are removed; commands that serve or train handle both signals themselves.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = _run(output)
        if sys.stdout is not None:
            sys.stdout.flush()
    except NewsbertError as error:  # standard output failed, perhaps on the document of an error
        output.error(error)
        code = error.exit_code
    except BrokenPipeError:
        _discard_stdout()
        code = 0
    sys.exit(code)


def _describe_parse_error(error: Any) -> str:
    """Return the message of an invalid command line, with the invalid value, which typer omits."""
    for option in getattr(getattr(error, "param", None), "opts", ()):
        for word, next_word in itertools.pairwise([*sys.argv, ""]):
            _, is_with_value, value = word.partition("=")
            if (
                normalize_option(word) == option
                and (argument := value if is_with_value else next_word) not in error.message
            ):
                return f"{argument!r} is no valid value for '{option}': {error.message}"
    return str(error.format_message())


def _run(output: Output) -> int:
    """Run the command, report its errors and return its exit code."""
    debug = "--debug" in sys.argv[1:]
    try:
        code: Any = app(prog_name="newsbert", standalone_mode=False)
    except NewsbertError as error:
        output.error(error, debug)
        return error.exit_code
    except _PARSE_ERROR as error:
        path = error.ctx.command_path if error.ctx else "newsbert"
        output.error(correct(error) or UsageError(_describe_parse_error(error), f"{path} --help"))
        return UsageError.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        raise
    except SystemExit as error:  # typer and rich turn a broken pipe into it
        if isinstance(error.__context__, BrokenPipeError):
            raise error.__context__ from None
        raise
    except Exception as error:
        # A bug in newsbert: its traceback is the message, and a reader of JSON still gets one document.
        output.traceback(error)
        if output.as_json:
            output.unexpected(error)
        return NewsbertError.exit_code
    if code == EXIT_INTERRUPTED:
        output.error(NewsbertError("interrupted"))
    return code if isinstance(code, int) else 0
