"""Make a model archive by a deployment.

Run as `python -m newsbert.images.programs.package MODEL OUTPUT NAME RUNTIME`.

This is a step of the serving image's build and runs in the trainer's environment. It starts an empty TorchServe on
loopback and calls `mlflow deployments create` with newsbert's target of the TorchServe plugin. The result is the
archive that the deployment has made and that has answered.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from newsbert.bundle import golden
from newsbert.core.settings import ServeSettings
from newsbert.errors import NewsbertError, ServingError
from newsbert.serving import runtime_dir
from newsbert.serving.archive import ARCHIVE_NAME
from newsbert.serving.protocol import SERVED_NAME
from newsbert.serving.torchserve import supervisor


def pack(model: Path, output: Path, name: str, runtime: str) -> None:
    """Deploy the model in a directory to its own TorchServe, which leaves the archive in `output`.

    Args:
        model: A bundle, or an MLflow model that holds one.
        output: The directory of the archive; it is created.
        name: The model's name in answers, such as `BertModel/7`.
        runtime: Name of the runtime.

    Raises:
        ServingError: If the deployment fails or does not answer.
    """
    output.mkdir(parents=True)
    mismatches: list[str] = []

    def on_log(text: str) -> None:
        print(text, flush=True)
        # The worker's log names the text; TorchServe reports to MLflow only that the worker did not start.
        mismatches.extend(line.strip() for line in text.splitlines() if golden.MISMATCH in line)

    with (
        runtime_dir.make(None) as work,
        supervisor.empty(output, ServeSettings(port=0), work, on_log) as server,
    ):
        target = f"newsbert:{server.management}?inference_port={server.address.port}"
        settings = {"EXPORT_PATH": output, "MODEL": name, "RUNTIME": runtime}
        command = ["mlflow", "deployments", "create", "-t", target, "-m", str(model), "--name", SERVED_NAME]
        for key, value in settings.items():
            command += ["-C", f"{key}={value}"]
        print("$", *command, flush=True)
        code = subprocess.run(command, check=False).returncode
    archives = list(output.glob("*.mar"))
    if code == 0 and len(archives) == 1:
        archives[0].rename(output / ARCHIVE_NAME)
    else:
        detail = f": {mismatches[-1]}" if mismatches else ""
        raise ServingError(
            f"mlflow deployments create ended with exit code {code}{detail}", "see what it printed above"
        )


def main() -> None:
    """Pack the model that the arguments name; exit with the error's exit code if that fails."""
    parser = argparse.ArgumentParser(
        prog="newsbert.images.programs.package", description="Make a model archive by deploying the model."
    )
    for argument in ("model", "output", "name", "runtime"):
        parser.add_argument(argument)
    arguments = parser.parse_args()
    try:
        pack(Path(arguments.model), Path(arguments.output), arguments.name, arguments.runtime)
    except NewsbertError as error:
        print(f"ERROR: {error.message}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
