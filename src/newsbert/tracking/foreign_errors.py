"""Translation of errors of MLflow, artifact stores, the network and imports into newsbert's errors, with hints.

Errors are recognized by the modules that raised them and by their texts, so that nothing has to be imported.
"""

import re
import traceback
import urllib.parse
from collections.abc import Iterator

from newsbert.core import installation, uris
from newsbert.core.installation import MissingExtraError
from newsbert.core.object_stores import AZURE, GS, S3, STORES, store_error
from newsbert.errors import NewsbertError, RefusedError, TrackingError, first_line
from newsbert.tracking import tracking_uri

_FOREIGN_PACKAGES = ("mlflow", "requests", "sqlalchemy", "urllib3", "google.protobuf")
_STORE_ERROR = re.compile(r"failures occurred while downloading|No such file or directory: '")


def translate(error: Exception, what: str, server: str, store: str | None = None) -> NewsbertError | None:
    """Translate an error of MLflow, a store's client, the network, a database, a disk or an import.

    Args:
        error: The error.
        what: The failed action, which begins the message.
        server: The tracking URI.
        store: The location of the artifacts, if the action concerns them.

    Returns:
        The translated error, or `None` if the error is a bug of newsbert.
    """
    if isinstance(error, NewsbertError):
        return error
    chain = list(_iterate_chain(error))
    missing = _make_import_error(chain)
    if missing is not None:
        return missing
    modules = _collect_modules(chain)
    client_store = next((client for client in (S3, GS, AZURE) if _is_from(modules, client.modules)), None)
    uri_store = STORES.get(urllib.parse.urlsplit(store or "").scheme)
    if client_store is not None or (uri_store is not None and _STORE_ERROR.search(str(error))):
        return store_error(chain, what, store or "the artifact store", client_store or uri_store)
    if _is_from(_list_class_modules(chain[:1]), _FOREIGN_PACKAGES):
        refusal = tracking_uri.tracking_error(what, server, error)
        if re.search(r"error code 40[13]", str(error)):
            return RefusedError(refusal.message, refusal.hint)
        return refusal
    if isinstance(error, OSError):  # artifacts on this machine's disk
        reason = uris.mask_credentials(str(error))
        return TrackingError(
            f"{what or 'the tracking files cannot be used'}: {reason}", "check the disk and its rights: df -h ."
        )
    return None


def _iterate_chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _list_class_modules(chain: list[BaseException]) -> list[str]:
    return [base.__module__ for error in chain for base in type(error).__mro__]


def _collect_modules(chain: list[BaseException]) -> list[str]:
    """Return the modules of the errors' classes, and of the traceback frames below newsbert's last one."""
    modules = _list_class_modules(chain)
    for error in chain:
        running: list[str] = []
        for frame, _ in traceback.walk_tb(error.__traceback__):
            module = str(frame.f_globals.get("__name__", ""))
            running = [] if module.partition(".")[0] == "newsbert" else [*running, module]
        modules += running
    return modules


def _is_from(modules: list[str], packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for module in modules for package in packages)


def _make_import_error(chain: list[BaseException]) -> NewsbertError | None:
    """Return the error for a package that is missing or cannot be imported, if that is the cause."""
    import_errors = [error for error in chain if isinstance(error, ImportError)]
    named = next((error for error in reversed(import_errors) if error.name), None)
    if not import_errors or (named is not None and str(named.name).partition(".")[0] == "newsbert"):
        return None
    if named is None:
        return TrackingError(f"a package cannot be imported: {first_line(import_errors[0])}", "newsbert doctor")
    module = str(named.name)
    module = module if module.startswith(("azure", "google")) else module.partition(".")[0]
    extra = next((client.extra for client in (S3, GS, AZURE) if _is_from([module], client.modules)), "train")
    extra = "gs" if module == "google" else extra
    if isinstance(named, ModuleNotFoundError) or "unknown location" in str(named):
        return MissingExtraError(module, extra)
    return TrackingError(
        f"the Python package {module!r} cannot be used: {first_line(named)}",
        installation.command(extra, "--upgrade"),
    )
