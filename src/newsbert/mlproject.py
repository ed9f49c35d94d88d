"""The MLproject with which `mlflow run` trains in the trainer image."""

from pathlib import Path

from newsbert import private_files
from newsbert.errors import UsageError

FILE = "MLproject"
_TEXT = """\
# Written by `newsbert build-image --trainer`, which knows the image's name.
#   mlflow run . -A network=host -P max_epochs=1 -P num_samples=2000
# against the tracking server in MLFLOW_TRACKING_URI: one over HTTP, since MLflow would mount an SQLite file where
# newsbert does not look for it. Training straight to an SQLite file is `newsbert train --in-container`.
name: newsbert
docker_env:
  image: {image}
entry_points:
  main:
    parameters:
      max_epochs: {{type: float, default: 5}}
      num_samples: {{type: float, default: 15000}}
      model_name: {{type: string, default: BertModel}}
      data: {{type: string, default: sample}}
    command: >-
      newsbert train --epochs {{max_epochs}} --samples {{num_samples}} --model-name {{model_name}} --data {{data}}
      --output /tmp/newsbert/bundle
"""


def write(directory: str, image: str) -> str:
    """Write the MLproject that names `image` into a directory of its own and return the file's path.

    Raises:
        UsageError: If it cannot be written there.
    """
    file = Path(directory) / FILE
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        private_files.replace(file, _TEXT.format(image=image))
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}", "name another directory: --project DIR") from error
    return str(file)
