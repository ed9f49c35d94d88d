"""Make a model archive as a deployment makes it.

Run as `python -m newsbert.images.programs.package MODEL OUTPUT NAME RUNTIME`.

A step of the serving image's build, in the trainer's environment: an empty TorchServe on loopback, `mlflow deployments
create` with our target of the TorchServe plugin, and the archive that this has made and that answered is kept.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from newsbert.bundle import golden
from newsbert.core.settings import ServeSettings
from newsbert.errors import NewsbertError, ServingError
from newsbert.serving.archive import ARCHIVE_NAME
from newsbert.serving.protocol import SERVED_NAME
from newsbert.serving.torchserve import process, runtime_dir, supervisor

START_TIMEOUT_S = 60


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
    otherwise: list[str] = []

    def on_log(text: str) -> None:
        print(text, flush=True)
        # The worker knows which text it is; what TorchServe tells MLflow is that it did not start.
        otherwise.extend(line.strip() for line in text.splitlines() if golden.MISMATCH in line)

    with (
        runtime_dir.make(None) as work,
        supervisor.empty(output, ServeSettings(port=0), work, on_log) as server,
    ):
        _wait_for(server)
        target = f"newsbert:{server.management}?inference_port={server.address.port}"
        settings = {"EXPORT_PATH": output, "MODEL": name, "RUNTIME": runtime}
        command = ["mlflow", "deployments", "create", "-t", target, "-m", str(model), "--name", SERVED_NAME]
        for key, value in settings.items():
            command += ["-C", f"{key}={value}"]
        print("$", *command, flush=True)
        code = subprocess.run(command, check=False).returncode
    made = list(output.glob("*.mar"))
    if code == 0 and len(made) == 1:
        made[0].rename(output / ARCHIVE_NAME)
    else:
        why = f": {otherwise[-1]}" if otherwise else ""
        raise ServingError(f"mlflow deployments create ended with exit code {code}{why}", "see what it printed above")


def _wait_for(server: process.Server) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not server.management.exists():
        if time.monotonic() > deadline:
            raise ServingError(f"TorchServe did not start within {START_TIMEOUT_S} s", "see what it printed above")
        time.sleep(0.1)


def main() -> None:
    """Pack the model given as arguments; exit 1 if that fails."""
    parser = argparse.ArgumentParser(
        prog="newsbert.images.programs.package", description="Make a model archive by deploying the model."
    )
    for argument in ("model", "output", "name", "runtime"):
        parser.add_argument(argument)
    given = parser.parse_args()
    try:
        pack(Path(given.model), Path(given.output), given.name, given.runtime)
    except NewsbertError as error:
        print(f"ERROR: {error.message}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
