"""The app, `main()`, and the only error boundary."""

import sys
from typing import Annotated

import click
import typer

from newsbert.cli import build_image, predict, register, serve, train
from newsbert.cli.output import Output
from newsbert.errors import NewsbertError, UsageError

EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="newsbert",
    help="Train, register, package and serve a news classifier.",
    epilog="Exit codes: 0 done, 1 it could not be done, 2 the call or the configuration is wrong, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train", epilog=train.EXAMPLES)(train.train)
app.command("register", epilog=register.EXAMPLES)(register.register)
app.command("build-image", epilog=build_image.EXAMPLES)(build_image.build_image)
app.add_typer(serve.app, name="serve")
app.command("predict", epilog=predict.EXAMPLES)(predict.predict)


def _print_version(value: bool) -> None:
    if value:
        from newsbert import __version__

        Output().result(f"newsbert {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit with the documented code."""
    # Asked of the arguments themselves, since a call that cannot be parsed must be answered in the wanted form too.
    output = Output(as_json="--json" in sys.argv[1:])
    try:
        code = app(standalone_mode=False)
    except NewsbertError as error:
        output.error(error, debug="--debug" in sys.argv[1:])
        code = error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        output.out.print(error.ctx.get_help() if error.ctx else "")
        code = 0
    except click.ClickException as error:
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "newsbert"
        output.error(UsageError(error.format_message(), f"{path} --help"))
        code = UsageError.exit_code
    except (click.Abort, KeyboardInterrupt):
        output.error(NewsbertError("interrupted"))
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has read enough; nothing more can be written, also not on the way out.
        sys.stdout = None
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
