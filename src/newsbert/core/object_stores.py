"""Object stores, and the meaning of their clients' errors."""

import re
import shlex
import urllib.parse
from dataclasses import dataclass

from newsbert.core import uris
from newsbert.errors import RefusedError, TrackingError, first_line


@dataclass(frozen=True)
class Store:
    """A kind of artifact store with its own client.

    Attributes:
        extra: The extra of newsbert that installs the client.
        modules: The modules of the client.
        credentials: Sources of the client's credentials.
        rights: The permissions that newsbert needs.
        endpoint: The variables that set the store's address.
        create: The command that makes a bucket; the bucket's name replaces `BUCKET`.
    """

    extra: str
    modules: tuple[str, ...]
    credentials: str
    rights: str
    endpoint: str
    create: str


S3 = Store(
    "s3",
    ("boto3", "botocore", "s3transfer"),
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "s3:GetObject, PutObject, DeleteObject and ListBucket on the bucket",
    "MLFLOW_S3_ENDPOINT_URL and AWS_DEFAULT_REGION",
    "aws s3 mb s3://BUCKET",
)

GS = Store(
    "gs",
    ("google.cloud", "google.auth", "google.oauth2", "google.api_core", "google.resumable_media"),
    "GOOGLE_APPLICATION_CREDENTIALS to a key file, or run gcloud auth application-default login",
    "roles/storage.objectAdmin on the bucket",
    "HTTPS_PROXY",
    "gcloud storage buckets create gs://BUCKET",
)

AZURE = Store(
    "azure",
    ("azure", "msal"),
    "AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCESS_KEY, or run az login",
    "the role Storage Blob Data Contributor on the container",
    "AZURE_STORAGE_CONNECTION_STRING",
    "az storage container create --name BUCKET --account-name ACCOUNT",
)

STORES = {"s3": S3, "gs": GS, "wasbs": AZURE, "abfss": AZURE}

_ERROR_PATTERNS = (
    # Pattern of the error's class or text, its meaning, its fix, and whether waiting may help.
    (
        r"RequestTimeTooSkewed|clock skew|date header too old|Token used too (early|late)|verify the clock"
        r"|too large.{0,40}(time|clock)",
        "this machine's clock is wrong",
        "set it: sudo timedatectl set-ntp true",
        False,
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|SSLError|SSLCertVerificationError|WRONG_VERSION_NUMBER",
        "its TLS certificate is not trusted, or it does not speak TLS",
        "name the authority in AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE, and check {endpoint}",
        False,
    ),
    (
        r"ExpiredToken|TokenRefreshRequired|RequestExpired|token (has |is |was )?(been )?expired|signature not valid in"
        r" the specified time|UnauthorizedSSOToken|SSOTokenLoad|session has expired|Reauthentication is needed",
        "the credentials have expired",
        "get new ones, and set {credentials}",
        False,
    ),
    (
        r"NoCredentialsError|PartialCredentials|Unable to locate credentials|Partial credentials"
        r"|DefaultCredentialsError|Anonymous (caller|credentials)|ProfileNotFound|profile .{0,99} could not be found"
        r"|Could not create a OAuth2|DefaultAzureCredential failed|CredentialUnavailableError"
        r"|NoAuthenticationInformation|NoAuthSupplied",
        "there are no credentials",
        "set {credentials}",
        False,
    ),
    (
        r"InvalidAccessKeyId|SignatureDoesNotMatch|InvalidClientTokenId|AuthFailure|AuthenticationFailed"
        r"|InvalidAuthenticationInfo|RefreshError|ClientAuthenticationError|Unauthenticated|UnauthorizedAccess"
        r"|MalformedError|InvalidToken|CredentialRetrieval|Incorrect padding|Connection string|Invalid Credentials"
        r"|failed to authenticate|InvalidCredentialInfo|\b401\b|invalid_grant|No key could be detected"
        r"|Could not deserialize key|Invalid base64|Invalid private key",
        "the credentials are refused",
        "set those of an account that the store knows: {credentials}",
        False,
    ),
    (
        r"NoSuchBucket|ContainerNotFound|specified (bucket|container|filesystem) does not exist|FilesystemNotFound"
        r"|ContainerBeingDeleted|InvalidBucketName|Invalid bucket name|bucket .{0,99} not found|InvalidResourceName"
        r"|404 [A-Z]+ \S{1,99}/b/[^/\s]{1,222}/o(\?|:)",
        "there is no such bucket",
        "check the address, or make it: {create}",
        False,
    ),
    (
        r"AccessDenied|AllAccessDisabled|Forbidden|AuthorizationPermissionMismatch|AuthorizationFailure|Permission"
        r" .{0,99}denied|PERMISSION_DENIED|AccountIsDisabled|InsufficientAccountPermissions|does not have storage\."
        r"|\b403\b",
        "the credentials may not do that",
        "ask whoever owns it for {rights}; or use others: {credentials}",
        False,
    ),
    (
        r"NoSuchKey|BlobNotFound|PathNotFound|No such object|No such file or directory|\(404\)",
        "a file is not there",
        "check the address, and whether it was deleted",
        False,
    ),
    (
        r"NameResolution|Name or service not known|name resolution|nodename nor servname|getaddrinfo|EndpointConnection"
        r"|NetworkConnection|resolve host|Connection refused|NewConnectionError|timed? ?out|Max retries exceeded"
        r"|ServiceRequestError|ServiceResponseError|TransportError|ConnectionClosed|ConnectionError|Could not connect"
        r"|RetryError|SlowDown|ServiceUnavailable|InternalError|ServerBusy|\b50[0234]\b",
        "it cannot be reached",
        "check that it can be reached: {endpoint}",
        True,
    ),
)


def store_error(chain: list[BaseException], what: str, place: str, store: Store | None = None) -> TrackingError:
    """Return the meaning of an artifact store client's error, with a fix as the hint.

    Args:
        chain: The error and its causes.
        what: The failed action, with which the message begins.
        place: Location of the artifacts.
        store: The kind of store, if the location does not show it.
    """
    store = store or of_scheme(place)
    masked_place = uris.mask_credentials(place)
    text = "\n".join(f"{type(error).__name__}: {error}" for error in chain)
    reason = uris.mask_credentials(_find_reason(text, chain[0]))
    text += text.replace("_", "")  # Arrow writes NO_SUCH_BUCKET
    what = what or f"{masked_place} cannot be used"
    begin = what if masked_place in what else f"{what}: {masked_place}"
    for pattern, meaning, fix, transient in _ERROR_PATTERNS:
        if store is not None and re.search(pattern, text, re.IGNORECASE):
            hint = fix.format(
                credentials=store.credentials,
                rights=store.rights,
                endpoint=store.endpoint,
                create=_format_create_command(store, place),
            )
            return (TrackingError if transient else RefusedError)(f"{begin}: {meaning}: {reason}", hint)
    hint = f"check the address and {store.endpoint}, and set {store.credentials}" if store else "check the address"
    return TrackingError(f"{begin}: {reason}", hint)


def of_scheme(uri: str) -> Store | None:
    """Return the kind of store for a URI's scheme, if that has its own client."""
    return STORES.get(urllib.parse.urlsplit(uri).scheme)


def _format_create_command(store: Store, place: str) -> str:
    """Return the command that makes the bucket; an invalid name stays a placeholder."""
    bucket, _, host = urllib.parse.urlsplit(place).netloc.partition("@")
    names = {"BUCKET": bucket, "ACCOUNT": host.partition(".")[0]}
    command = store.create
    for word, name in names.items():
        if re.fullmatch(r"[A-Za-z0-9$][A-Za-z0-9._-]{1,220}", name):
            command = command.replace(word, shlex.quote(name))
    return command


def _find_reason(text: str, error: BaseException) -> str:
    """Return the line with the reason: MLflow puts its own line before those of files that it could not fetch."""
    _, files, after = text.partition("##### File ")
    lines = [line.strip() for line in after.splitlines()[1:] if line.strip()] if files else []
    return lines[0] if lines else first_line(error)
