"""Whether KServe's SDK knows every field of an InferenceService, which is on standard input; run where the SDK is."""

import json
import re
import sys
from typing import Any

import kserve.models
import kubernetes.client.models


def list_unknown(value: Any, kind: str, path: str) -> list[str]:
    """Return the fields of a value that its model does not have, and those whose values are of another type."""
    if match := re.fullmatch(r"[Ll]ist\[(.*)]", kind):
        return [fault for index, item in enumerate(value) for fault in list_unknown(item, match[1], f"{path}[{index}]")]
    if match := re.fullmatch(r"[Dd]ict[(\[]str, (.*)[)\]]", kind):
        return [fault for name, item in value.items() for fault in list_unknown(item, match[1], f"{path}.{name}")]
    model = getattr(kserve.models, kind, None) or getattr(kubernetes.client.models, kind, None)
    if model is None:
        types = {"str": str, "int": int, "bool": bool, "object": object}
        return [] if isinstance(value, types[kind]) else [f"{path} is no {kind}"]
    fields = {name: model.openapi_types[attribute] for attribute, name in model.attribute_map.items()}
    return [
        fault
        for name, item in value.items()
        for fault in (
            list_unknown(item, fields[name], f"{path}.{name}") if name in fields else [f"{path}.{name} is unknown"]
        )
    ]


if __name__ == "__main__":
    print(json.dumps(list_unknown(json.load(sys.stdin), "V1beta1InferenceService", "")))
