"""Keys, and a bundle to sign: it answers nothing, so that reading more of it than its contract fails."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from newsbert.bundle.bundle import Bundle, seal
from newsbert.bundle.contract import SIGNATURE_FILE, GoldenText


def write_key(directory: Path, name: str, curve: ec.EllipticCurve | None = None, passphrase: bytes = b"") -> Path:
    """Make a private key `NAME.pem` and its public key `NAME.pub`."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    private = directory / f"{name}.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    private.with_suffix(".pub").write_bytes(public)
    return private


def write_bundle(directory: Path) -> Bundle:
    """Make a bundle whose files are of no use."""
    directory.mkdir()
    for name in ("tokenizer.json", "model.onnx", "model.safetensors"):
        (directory / name).write_text("nothing of use")
    fields = {"newsbert_version": "0", "labels": ["a", "b"], "max_length": 8, "pad_id": 0, "cleaning": []}
    fields |= {"temperature": 1.0, "base_model": {"name": "none"}, "libraries": {}, "graphs": {}}
    fields |= {"data": {"name": "none", "sha256": "", "rows": {"train": 1, "test": 1}}}
    fields |= {"metrics": {"accuracy": 1.0, "f1_macro": 1.0}, "golden": [GoldenText("a text", [0.5, 0.5])]}
    return seal(directory, fields)


def sign(path: Path, key: Path) -> bytes:
    """Sign the bundle in a directory, and return the signature."""
    signature, _ = Bundle.read_unsigned(path).sign(key)
    (path / SIGNATURE_FILE).write_bytes(signature)
    return signature
