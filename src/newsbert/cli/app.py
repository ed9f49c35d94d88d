"""The app, `main()`, and the only error boundary."""

import io
import itertools
import os
import shlex
import signal
import sys
from types import ModuleType
from typing import Annotated, Any

import typer

from newsbert.cli import (
    archive,
    build_image,
    config,
    deliver,
    deploy,
    doctor,
    environments,
    evaluate,
    explain,
    init,
    inspect,
    playground,
    predict,
    register,
    rollback,
    runs,
    runtimes,
    tracking,
    train,
)
from newsbert.cli._framework import Commands
from newsbert.cli._output import Output
from newsbert.cli.serve import app as serve
from newsbert.core.environment import limit_spinning
from newsbert.errors import NewsbertError, UsageError

EXIT_INTERRUPTED = 130
_CALL_ERROR: Any = typer.BadParameter.__bases__[0]
"""What a call that cannot be parsed raises: Click's `UsageError`, of which typer since 0.26 has a copy of its own."""

app = Commands(
    name="newsbert",
    help="Train, register, package and serve a news classifier.",
    epilog="Exit codes: 0 done, 1 it could not be done, 2 the call or the configuration is wrong, 130 interrupted.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={
        "help_option_names": ["-h", "--help"],
        # `mlflow run -P learning_rate=2e-5` ends in --learning_rate, and the trainers of transformers take both.
        "token_normalize_func": lambda name: name.replace("_", "-"),
    },
)
_PANELS: dict[str, tuple[ModuleType, ...]] = {
    "Train": (init, train, runs, evaluate, register),
    "Classify": (predict, explain, playground),
    "Serve": (serve, runtimes, archive, build_image, inspect),
    "Deliver": (deliver, deploy, rollback, environments),
    "Set up": (doctor, config, tracking),
}
"""Each module is a command that has its name, or a group of commands."""

for _panel, _modules in _PANELS.items():
    for _module in _modules:
        _name = _module.__name__.removeprefix("newsbert.cli.").partition(".")[0]
        if hasattr(_module, "app"):
            app.add_typer(_module.app, name=_name, rich_help_panel=_panel)
        else:
            _command = app.command(_name.replace("_", "-"), epilog=_module.EXAMPLES, rich_help_panel=_panel)
            _command(getattr(_module, _name))


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
    """Standard output that says in our own way why it cannot be written."""

    def write(self, data: Any, /) -> int:
        """Write bytes.

        Raises:
            BrokenPipeError: If whoever read has read enough.
            NewsbertError: If it cannot be written; what comes after goes nowhere.
        """
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            _give_up_stdout()
            raise NewsbertError(
                f"standard output cannot be written: {error.strerror}", "send it elsewhere, or make room: df -h"
            ) from error


def _give_up_stdout() -> None:
    """Send what is still to be written nowhere: Python would try again on the way out, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def main() -> None:
    """Run the command line and exit with the documented code."""
    # Asked of the arguments themselves, since a call that cannot be parsed must be answered in the wanted form too.
    output = Output(as_json="--json" in sys.argv[1:])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Stdout(sys.stdout.fileno(), "w", closefd=False)),
            encoding=sys.stdout.encoding,
            errors="replace",  # a label or text that the terminal's encoding lacks
            line_buffering=True,
        )
    limit_spinning()
    # As Ctrl+C, so that temporary files go; commands that serve or train have more to say about both.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = _run(output)
        if sys.stdout is not None:
            sys.stdout.flush()
    except NewsbertError as error:  # standard output's own, also where it was to take an error's document
        output.error(error)
        code = error.exit_code
    except BrokenPipeError:
        _give_up_stdout()
        code = 0
    sys.exit(code)


def _said(error: Any) -> str:
    """What is wrong with a call, with the value that is, which typer leaves out."""
    for option in getattr(getattr(error, "param", None), "opts", ()):
        for word, after in itertools.pairwise([*sys.argv, ""]):
            _, is_with_value, value = word.partition("=")
            if _option(word) == option and (given := value if is_with_value else after) not in error.message:
                return f"{given!r} is no valid value for '{option}': {error.message}"
    return error.format_message() or "a command is missing"  # Click has shown the help instead of saying it


_RENAMED = {
    "--max-epochs": "--epochs",
    "--num-samples": "--samples",
    "--model-save-path": "--output",
}
"""Options of the example that newsbert replaces, and what they are called here."""

_UNNEEDED = {
    "--save-model": "each model is saved, and logged to MLflow",
    "--vocab-file": "the vocabulary is the encoder's: --base-model",
}


def _renamed(error: Any, command: str) -> UsageError | None:
    """Return what an option of the replaced example is called here."""
    name = _option(str(getattr(error, "option_name", "")))
    typed = next((word.partition("=")[0] for word in sys.argv if _option(word) == name), name)
    if name in _UNNEEDED:
        return UsageError(f"there is no option {typed}: {_UNNEEDED[name]}", f"{command} --help")
    new = _RENAMED.get(name)
    if new is None or new not in (flag for param in error.ctx.command.params for flag in param.opts):
        return None
    words = [new + word[len(name) :] if _option(word) == name else word for word in sys.argv[1:]]
    return UsageError(f"there is no option {typed}: it is {new} here", shlex.join(["newsbert", *words]))


def _option(word: str) -> str:
    """Return the option in a word of the command line, as it is called here: `--learning_rate=2e-5` is no other."""
    return word.partition("=")[0].replace("_", "-")


def _run(output: Output) -> int:
    """Run the command and return its exit code, its errors reported."""
    debug = "--debug" in sys.argv[1:]
    try:
        code: Any = app(prog_name="newsbert", standalone_mode=False)
    except NewsbertError as error:
        output.error(error, debug)
        return error.exit_code
    except _CALL_ERROR as error:
        path = error.ctx.command_path if error.ctx else "newsbert"
        output.error(_renamed(error, path) or UsageError(_said(error), f"{path} --help"))
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
        # A bug of ours: its traceback is the message, and whoever reads JSON gets their one document all the same.
        output.traceback(error)
        if output.as_json:
            output.unexpected(error)
        return NewsbertError.exit_code
    if code == EXIT_INTERRUPTED:
        output.error(NewsbertError("interrupted"))
    return code if isinstance(code, int) else 0
