"""Requests by the clients that others have written: `python FILE triton|kserve HTTP GRPC` in their own environment.

Every client classifies two texts; printed are its answers, as JSON by client. One process cannot import the clients of
both: they describe the same gRPC messages.
"""

import asyncio
import json
import sys
from typing import Any

MODEL, TEXTS, TITLES = "news_classification", ["goal team cup", "größter Markt"], ["Sport", "Börse"]


def describe(read: Any) -> dict[str, Any]:
    """Return the outputs as JSON has them; `read` returns an output's array."""

    def decode(value: Any) -> Any:
        return value.decode() if isinstance(value, bytes) else value

    arrays = {name: read(name) for name in ("label", "score", "review", "probabilities")}
    return {
        name: {"shape": list(array.shape), "data": [decode(value) for value in array.ravel().tolist()]}
        for name, array in arrays.items()
    }


def ask_triton(module: Any, address: str, **options: Any) -> dict[str, Any]:
    """Classify with a client of NVIDIA's."""
    import numpy as np

    client = module.InferenceServerClient(address)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL)
    client.get_server_metadata()
    client.get_model_metadata(MODEL)
    inputs = []
    for name, texts in (("text", TEXTS), ("title", TITLES)):
        tensor = module.InferInput(name, [len(texts)], "BYTES")
        tensor.set_data_from_numpy(np.array([text.encode() for text in texts], object), **options)
        inputs.append(tensor)
    names = ("label", "score", "review", "probabilities")
    outputs = [module.InferRequestedOutput(name, **options) for name in names]
    result = client.infer(MODEL, inputs, outputs=outputs, request_id="7")
    try:
        client.infer(MODEL, inputs[1:])
    except Exception as error:
        assert "the input 'text' is missing" in str(error), error
    else:
        raise AssertionError("a request without text was answered")
    return describe(result.as_numpy)


async def ask_kserve(http: str, grpc: str) -> dict[str, Any]:
    """Classify with the clients of KServe's SDK."""
    from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
    from kserve.inference_client import RESTConfig

    def make() -> Any:
        inputs = [
            InferInput(name, [len(texts)], "BYTES", data=texts) for name, texts in (("text", TEXTS), ("title", TITLES))
        ]
        return InferRequest(MODEL, inputs)

    answers = {}
    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await rest.is_server_live(http) and await rest.is_server_ready(http)
    assert await rest.is_model_ready(http, MODEL)
    result = await rest.infer(http, make(), model_name=MODEL)
    answers["kserve REST"] = describe(lambda name: result.get_output_by_name(name).as_numpy())
    rpc = InferenceGRPCClient(grpc)
    assert await rpc.is_server_live() and await rpc.is_server_ready() and await rpc.is_model_ready(MODEL)
    rpc_result = await rpc.infer(make())
    answers["kserve gRPC"] = describe(lambda name: rpc_result.get_output_by_name(name).as_numpy())
    return answers


def ask_tritons(http: str, grpc: str) -> dict[str, Any]:
    """Classify with all of NVIDIA's clients."""
    import tritonclient.grpc
    import tritonclient.http

    address = http.removeprefix("http://")
    return {
        "triton HTTP": ask_triton(tritonclient.http, address, binary_data=True),
        "triton HTTP, JSON": ask_triton(tritonclient.http, address, binary_data=False),
        "triton gRPC": ask_triton(tritonclient.grpc, grpc),
    }


def main(maker: str, http: str, grpc: str) -> None:
    """Classify with the clients of one maker, and print their answers."""
    print(json.dumps(ask_tritons(http, grpc) if maker == "triton" else asyncio.run(ask_kserve(http, grpc))))


if __name__ == "__main__":
    main(*sys.argv[1:])
