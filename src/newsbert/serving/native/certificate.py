"""The certificate of a server's TLS, in files that may change while it runs."""

import logging
import ssl
from pathlib import Path

from newsbert.core import files
from newsbert.errors import ServingError

_log = logging.getLogger(__name__)


class Certificate:
    """A certificate chain and its key.

    Args:
        chain: PEM file of the chain.
        key: PEM file of its private key.

    Attributes:
        context: Context of new connections.
        pem: Content of the key and of the chain.

    Raises:
        ServingError: If they cannot be used.
    """

    def __init__(self, chain: Path, key: Path) -> None:
        self._chain, self._key = chain, key
        self._stamp = self._read_stamp()
        self._load()

    def reload(self) -> None:
        """Load the files again if one has changed; files that cannot be used change nothing."""
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._load()
        except ServingError as error:
            _log.error("%s; the certificate before is used still", error.message)

    def _load(self) -> None:
        # A context of its own: a failed load would leave an old one with the new chain and the old key.
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            pem = self._key.read_bytes(), self._chain.read_bytes()
            context.load_cert_chain(self._chain, self._key)
        except (OSError, ssl.SSLError) as error:
            raise ServingError(
                f"the certificate in {self._chain} and {self._key} cannot be used: {error}",
                "give a chain and its key as PEM files: --tls-cert FILE --tls-key FILE",
            ) from error
        self.context, self.pem = context, pem

    def _read_stamp(self) -> tuple[int, ...]:
        return files.read_stamp(self._chain) + files.read_stamp(self._key)
