"""Environments of tests: on ports of their own, gone afterwards."""

import contextlib
import os

PROXY_IMAGE = os.environ.get("NEWSBERT_TEST_PROXY_IMAGE", "haproxy:3.0.8")


def environment_toml(name: str, port: int) -> str:
    """An environment as a newsbert.toml has it."""
    return f'[environments.{name}]\nport = {port}\nproxy_image = "{PROXY_IMAGE}"\n'


def remove_environment(name: str) -> None:
    """Remove all that an environment has in the engine."""
    import docker

    with contextlib.closing(docker.from_env()) as client:
        for container in client.containers.list(all=True, filters={"label": f"newsbert.environment={name}"}):
            container.remove(force=True, v=True)
        for network in client.networks.list(names=[f"newsbert-{name}"]):
            network.remove()
        for volume in client.volumes.list(filters={"name": f"newsbert-{name}-proxy-data"}):
            volume.remove()
