"""The MLproject with which `mlflow run` trains in the trainer image."""

from pathlib import Path

from newsbert.core import files
from newsbert.errors import UsageError

FILE = "MLproject"
_TEXT = """\
# Written by `newsbert build-image --trainer`, which knows the image's name.
#   mlflow run . --experiment-name newsbert -A network=host -P max_epochs=1 -P num_samples=2000
# Options of `newsbert train` that are not below go by their own names: -P learning_rate=2e-5 -P model_name=BertModel.
# It sees the files of this directory with
#   -A volume="$PWD:$PWD:ro" -A workdir="$PWD" -A user="$(id -u):$(id -g)" -P data=news.csv
# MLFLOW_TRACKING_URI is a server over HTTP, since MLflow would mount an SQLite file where newsbert does not look for
# it. Training straight to an SQLite file is `newsbert train --in-container`.
name: newsbert
docker_env:
  image: {image}
entry_points:
  main:
    parameters:
      max_epochs: {{type: float, default: 5}}
      num_samples: {{type: float, default: 15000}}
      data: {{type: string, default: sample}}
    command: >-
      newsbert train --epochs {{max_epochs}} --max-train-samples {{num_samples}} --data {{data}}
      --output-dir /tmp/newsbert/bundle
"""


def write(directory: str, image: str) -> str:
    """Write the MLproject for `image` into its own directory and return the file's path.

    Raises:
        UsageError: If the file cannot be written there.
    """
    file = Path(directory) / FILE
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(file, _TEXT.format(image=image))
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}", "name another directory: --project DIR") from error
    return str(file)
