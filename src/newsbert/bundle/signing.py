"""Signatures of bundles: proof of the origin of a contract, which has the digests of all other files.

A signature is an OpenSSF Model Signing signature of `newsbert.json` alone: an in-toto statement in a Sigstore bundle.
The package `model-signing` makes it with a local key. That package's verifier also accepts forms that its signer does
not write. So signatures are checked here, in one form and by `cryptography` alone. Loading a model needs none of the
signer's packages.
"""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.core import config, environment, temporary
from newsbert.core.installation import MissingExtraError
from newsbert.errors import ModelError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

CONTRACT_FILE = "newsbert.json"
SIGNATURE_FILE = "newsbert.sig"
_MAX_BYTES = 16 * 1024
"""Maximum size of a signature or a key file; both have less than two kilobytes."""

_EXTRA = "sign"
_PAYLOAD_TYPE = b"application/vnd.in-toto+json"
_SIGNATURE_PATTERN = re.compile(
    rb'\{"mediaType":"application/vnd\.dev\.sigstore\.bundle\.v0\.3\+json",'
    rb'"verificationMaterial":\{"publicKey":\{"hint":"(?P<key>[0-9a-f]{64})"\},"tlogEntries":\[\]\},'
    rb'"dsseEnvelope":\{"payload":"(?P<payload>[A-Za-z0-9+/=]+)","payloadType":"'
    + re.escape(_PAYLOAD_TYPE)
    + rb'","signatures":\[\{"sig":"(?P<signature>[A-Za-z0-9+/=]+)","keyid":""\}\]\}\}'
)
"""Pattern of a signature file as the signer writes it: one key and one signature, no certificate, no log."""

_CURVES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
"""Hash function by supported curve of a key."""

MAKE_KEY = "openssl ecparam -genkey -name prime256v1 -noout -out KEY.pem"
PUBLISH_KEY = "openssl ec -in KEY.pem -pubout -out KEY.pub"


def read(directory: Path) -> bytes | None:
    """Return a bundle's signature, unchecked; None if it has none, or the file is not plain and small.

    Raises:
        OSError: If the file cannot be read.
    """
    file = directory / SIGNATURE_FILE
    if file.is_symlink() or not file.is_file() or file.stat().st_size > _MAX_BYTES:
        return None
    return file.read_bytes()


def check(content: bytes, signature: bytes | None, name: str, hint: str) -> str | None:
    """Check a contract's signature if `trusted_keys` is set.

    Args:
        content: The contract.
        signature: The signature, if there is one.
        name: Name of the model in error messages.
        hint: Hint on how to get a signed model.

    Returns:
        The trusted key that made the signature; None if no keys are set.

    Raises:
        ModelError: If no trusted key made the signature.
        UsageError: If a trusted key cannot be read.
    """
    files = config.trusted_keys()
    if not files:
        return None
    keys = [_load_public_key(file) for file in files]
    names = dict(zip(map(_compute_fingerprint, keys), files, strict=True))
    if signature is None:
        raise ModelError(f"{name} is not signed, and trusted_keys is set", hint)
    try:
        fingerprint = _verify(content, signature, keys)
    except ValueError as error:
        raise ModelError(f"{name} is not signed by a trusted key: its {SIGNATURE_FILE} {error}", hint) from error
    return f"{names[fingerprint].name} (SHA-256 {fingerprint})"


def sign(content: bytes, key_file: Path) -> tuple[bytes, str]:
    """Sign a contract with a local key.

    Args:
        content: The contract.
        key_file: Private key in PEM on a NIST curve; `NEWSBERT_SIGNING_PASSPHRASE` has its passphrase.

    Returns:
        The signature, and the SHA-256 of the public key.

    Raises:
        UsageError: If the key cannot be used.
        MissingExtraError: If the signer is not installed.
    """
    key_file = _expand_user(key_file)
    key = _load_private_key(key_file).public_key()
    fingerprint = _compute_fingerprint(key)
    try:
        from model_signing.signing import Config
    except ImportError as error:
        raise MissingExtraError("model_signing", _EXTRA) from error
    with temporary.directory() as directory:
        contract, file = directory / CONTRACT_FILE, directory / SIGNATURE_FILE
        contract.write_bytes(content)
        signer = Config().use_elliptic_key_signer(private_key=key_file, password=environment.signing_passphrase())
        while True:  # the signer picks one of two valid values by chance, and only the lower is accepted here
            signer.sign(contract, file)
            signature = file.read_bytes()
            if _is_low(_parse_signature(signature)[2], key):
                break
    _verify(content, signature, [key])
    return signature, fingerprint


def _verify(content: bytes, signature: bytes, keys: "Sequence[EllipticCurvePublicKey]") -> str:
    """Return the fingerprint of the key that signed a contract.

    Raises:
        ValueError: If none of the keys did.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    fingerprint, payload, value = _parse_signature(signature)
    key = next((key for key in keys if _compute_fingerprint(key) == fingerprint), None)
    if key is None:
        raise ValueError(f"is of another key (SHA-256 {fingerprint})")
    if not _is_low(value, key):
        raise ValueError("was altered")
    encoded = b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE, len(payload), payload)
    try:
        key.verify(value, encoded, ec.ECDSA(getattr(hashes, _CURVES[key.curve.name])()))
    except InvalidSignature as error:
        raise ValueError("was altered") from error
    resource = {"digest": hashlib.sha256(content).hexdigest(), "name": ".", "algorithm": "sha256"}
    try:
        statement = json.loads(payload)
        claims = (
            statement["_type"],
            statement["predicateType"],
            [subject["name"] for subject in statement["subject"]],
            statement["predicate"]["resources"],
        )
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError("says something else than model-signing's") from error
    if claims != (
        "https://in-toto.io/Statement/v1",
        "https://model_signing/signature/v1.0",
        [CONTRACT_FILE],
        [resource],
    ):
        raise ValueError(f"is of another {CONTRACT_FILE}, or the model was altered")
    return fingerprint


def _parse_signature(signature: bytes) -> tuple[str, bytes, bytes]:
    """Parse a signature into the key's fingerprint, the statement and the signature's value.

    Raises:
        ValueError: If the file does not have the form that the signer writes.
    """
    match = _SIGNATURE_PATTERN.fullmatch(signature) if len(signature) <= _MAX_BYTES else None
    if match is None:
        raise ValueError("has another form than that of newsbert register --sign")
    return match["key"].decode(), _decode_base64(match["payload"]), _decode_base64(match["signature"])


def _decode_base64(text: bytes) -> bytes:
    """Decode base64 in the one form that an encoder writes for these bytes.

    Raises:
        ValueError: If the text is anything else.
    """
    try:
        decoded = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError("was altered") from error
    if base64.b64encode(decoded) != text:
        raise ValueError("was altered")
    return decoded


def _is_low(value: bytes, key: "EllipticCurvePublicKey") -> bool:
    """Return whether a signature's value is the lower of the two valid ones.

    One can be computed from the other without the key.

    Raises:
        ValueError: If it is no signature value.
    """
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    try:
        return decode_dss_signature(value)[1] <= key.curve.group_order // 2
    except ValueError as error:
        raise ValueError("was altered") from error


def _compute_fingerprint(key: "EllipticCurvePublicKey") -> str:
    """Return the SHA-256 of a public key in PEM, which identifies the key in signatures."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _load_public_key(file: Path) -> "EllipticCurvePublicKey":
    """Load a trusted key.

    Raises:
        UsageError: If the file is no such key.
        MissingExtraError: If `cryptography` is not installed.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise MissingExtraError("cryptography", _EXTRA) from error
    try:
        key = load_pem_public_key(_read_key(_expand_user(file)))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"the trusted key {file} is no public key in PEM", PUBLISH_KEY) from error
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise UsageError(f"the trusted key {file} is not on one of the curves {', '.join(_CURVES)}", MAKE_KEY)
    return key


def _load_private_key(file: Path) -> "EllipticCurvePrivateKey":
    """Load a private key for signing.

    Raises:
        UsageError: If the file is no such key, or the passphrase is wrong.
        MissingExtraError: If `cryptography` is not installed.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as error:
        raise MissingExtraError("cryptography", _EXTRA) from error
    passphrase = environment.signing_passphrase()
    try:
        key = load_pem_private_key(_read_key(file), passphrase)
    except TypeError as error:
        state = "is not encrypted" if passphrase else "is encrypted"
        verb = "unset" if passphrase else "set"
        raise UsageError(f"the key {file} {state}", f"{verb} NEWSBERT_SIGNING_PASSPHRASE") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        problem = "no private key in PEM" + (", or its passphrase is another" if passphrase else "")
        raise UsageError(f"the key {file} is {problem}", MAKE_KEY) from error
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise UsageError(f"the key {file} is not on one of the curves {', '.join(_CURVES)}", MAKE_KEY)
    return key


def _expand_user(file: Path) -> Path:
    """Replace `~` by the home directory of the user.

    Raises:
        UsageError: If there is no such user, or the user has no home directory.
    """
    try:
        return file.expanduser()
    except RuntimeError as error:
        raise UsageError(f"the key {file} cannot be read: {error}", "write its whole path") from error


def _read_key(file: Path) -> bytes:
    """Read a key file.

    Raises:
        UsageError: If the file cannot be read.
    """
    try:
        with file.open("rb") as stream:
            return stream.read(_MAX_BYTES)
    except OSError as error:
        raise UsageError(f"the key {file} cannot be read: {error.strerror or error}", "check the path") from error
