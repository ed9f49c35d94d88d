"""`python -m newsbert.packing MODEL OUTPUT NAME RUNTIME`: make a model archive as a deployment makes it.

A step of the serving image's build, in the trainer's environment: an empty TorchServe on loopback, `mlflow deployments
create` with our target of the TorchServe plugin, and the archive that this has made and that answered is kept.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from newsbert import torchserve
from newsbert.archive import SERVED_NAME
from newsbert.config import ServeSettings
from newsbert.errors import NewsbertError, ServingError


def pack(model: Path, output: Path, name: str, runtime: str) -> None:
    """Deploy the model in a directory to a TorchServe of its own, which leaves its archive in `output`.

    Args:
        model: A bundle, or an MLflow model that holds one.
        output: A directory, made here.
        name: What the answers say of the model, such as `BertModel/7`.
        runtime: Name of the runtime.

    Raises:
        ServingError: If the deployment cannot be made, or does not answer.
    """
    output.mkdir(parents=True)
    with torchserve.empty(output, ServeSettings(port=0), print) as server:
        target = f"newsbert:{server.management}?inference_port={server.address.port}"
        settings = {"EXPORT_PATH": output, "MODEL": name, "RUNTIME": runtime}
        command = ["mlflow", "deployments", "create", "-t", target, "-m", str(model), "--name", SERVED_NAME]
        for key, value in settings.items():
            command += ["-C", f"{key}={value}"]
        print("$", *command, flush=True)  # noqa: T201
        code = subprocess.run(command, check=False).returncode
    if code != 0:
        raise ServingError(f"mlflow deployments create ended with exit code {code}", "see what it printed above")


def main() -> None:
    """Pack the model given as arguments; exit 1 if that fails."""
    parser = argparse.ArgumentParser(
        prog="newsbert.packing", description="Make a model archive by deploying the model."
    )
    for argument in ("model", "output", "name", "runtime"):
        parser.add_argument(argument)
    given = parser.parse_args()
    try:
        pack(Path(given.model), Path(given.output), given.name, given.runtime)
    except NewsbertError as error:
        print(f"ERROR: {error.message}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
