"""Prints all routes of MLflow's server with accounts, as JSON: `[[METHOD, RULE], …]`. Run as a program."""

import json
import os
import sys
from pathlib import Path


def main(directory: Path) -> None:
    """Build the app as the server does, on a database of its own, and print what it routes."""
    database = f"sqlite:///{directory / 'routes.db'}"
    config = directory / "routes.ini"
    config.write_text(f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {database}\nadmin_username = admin\n")
    os.environ |= {
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_AUTH_ADMIN_PASSWORD": "not-used-anywhere",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "not-used-anywhere",
    }
    from fastapi import APIRouter
    from mlflow.server import app, auth, fastapi_app
    from mlflow.server.mcp_server_api import get_mcp_server_api_route_prefixes, mcp_server_router

    auth.create_app(app)
    routes = {(method, rule.rule) for rule in app.url_map.iter_rules() for method in rule.methods or ()}
    for router in vars(fastapi_app).values():
        if isinstance(router, APIRouter):
            prefixes = get_mcp_server_api_route_prefixes() if router is mcp_server_router else [""]
            routes |= {
                (method, prefix + route.path)  # type: ignore[attr-defined]
                for prefix in prefixes
                for route in router.routes
                for method in getattr(route, "methods", ())
            }
    json.dump(sorted(routes), sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
