"""What the environment says of stores: where a server is, and which variables name a secret.

Secrets come from the environment alone. A URL is printed, logged and recorded, so none is in it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from rayal.errors import PlaceError

_WEB = ("http", "https")
_SECRETS = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN",
)  # fmt: skip


@dataclass(frozen=True)
class Names:
    """The variables of one kind of store."""

    keys: tuple[str, ...]
    others: tuple[str, ...]  # variables that stand in for the keys
    files: tuple[str, ...]  # files below the home that do
    instead: str  # both in words
    endpoint_name: str

    @property
    def all_names(self) -> tuple[str, ...]:
        """The variables that say who asks, and whom."""
        return (*self.keys, *self.others)

    def are_missing(self) -> bool:
        """Whether no credentials can be found on this machine."""
        if any(os.environ.get(name) for name in (*self.keys, *self.others)):
            return False
        return not any((Path.home() / name).exists() for name in self.files)


_S3 = Names(
    keys=("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    others=(
        "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_SHARED_CREDENTIALS_FILE",
    ),
    files=(".aws/credentials", ".aws/config"),
    instead="AWS_PROFILE, and there is no ~/.aws/credentials",
    endpoint_name="AWS_ENDPOINT_URL",
)  # fmt: skip
_GCS = Names(
    keys=("GOOGLE_APPLICATION_CREDENTIALS",),
    others=(),
    files=(".config/gcloud/application_default_credentials.json",),
    instead="gcloud's application-default login there",
    endpoint_name="STORAGE_EMULATOR_HOST",
)
_AZURE = Names(
    keys=("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"),
    others=("AZURE_STORAGE_CONNECTION_STRING", "AZURE_CLIENT_ID", "AZURE_STORAGE_SAS_TOKEN"),
    files=(".azure",),
    instead="AZURE_STORAGE_CONNECTION_STRING",
    endpoint_name="AZURE_STORAGE_ACCOUNT_NAME",
)
_OTHER = Names((), (), (), "", "the address")


def of(url: str) -> Names:
    """Gives the variables that a URL's store knows."""
    scheme = url.partition("://")[0]
    known = {"s3": _S3, "s3a": _S3, "gs": _GCS, "gcs": _GCS, "abfs": _AZURE, "abfss": _AZURE}
    return known.get(scheme, _OTHER)


def is_store(url: str) -> bool:
    """Whether a URL is of a store with buckets that this page knows."""
    return of(url) is not _OTHER


def endpoint() -> str | None:
    """Gives the address of the S3 server, None for that of Amazon."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def gcs_endpoint() -> str | None:
    """Gives the address of a server that stands in for Google's, None for Google's."""
    return os.environ.get("STORAGE_EMULATOR_HOST") or None


def region() -> str | None:
    """Gives the region that the environment names."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None


def server_of(url: str) -> str:
    """Gives the words for the server behind a URL."""
    server = {_S3: endpoint(), _GCS: gcs_endpoint()}.get(of(url))
    if server:
        return f"at {_without_user(server)}"
    names = {_S3: "of Amazon S3", _GCS: "of Google Cloud Storage", _AZURE: "of Azure"}
    return names.get(of(url), f"of {url.partition('://')[0]}")


def bucket_of(url: str) -> str:
    """Gives the name of a URL's bucket."""
    return url.partition("://")[2].partition("/")[0]


def refuse_secrets(url: str, but_globs: bool = False) -> None:
    """Refuses a URL with a password in it; the error does not repeat it. `but_globs`: a question
    mark may stand for a letter.

    Raises:
        PlaceError: there is one, or arguments that may hold one.
    """
    scheme, _, rest = url.partition("://")
    has_arguments = "?" in rest and (not but_globs or "=" in rest.partition("?")[2])
    user = rest.partition("/")[0].rpartition("@")[0]
    if has_arguments or ":" in user or (user and scheme.lower() in _WEB):  # there it may be a token
        path = re.sub(r"^[^/]*@", "", rest.partition("?")[0])
        advice = (
            "or fetch it to a disk first"
            if scheme.lower() in _WEB
            else f"and set {' and '.join(of(url).keys) or 'the variables of this store'} and "
            f"{of(url).endpoint_name} in the environment"
        )
        raise PlaceError(
            f"{scheme}://{path} was given with a password or with arguments, which would be "
            f"written into logs and records; leave them out of the URL, {advice}"
        )


def shown(url: str) -> str:
    """Gives a URL as it may be printed and recorded: without a name and a password, and without
    arguments, of which one may be a signature."""
    scheme, mark, rest = url.partition("://")
    is_web = scheme.lower() in _WEB
    rest = re.sub(r"^[^/]*@" if is_web else r"^[^/]*:[^/]*@", "", rest)
    path, asks, arguments = rest.partition("?")
    if asks and (is_web or "=" in arguments):  # a question mark alone may be part of a name
        rest = f"{path}?..."
    return f"{scheme}{mark}{rest}" if mark else url


def scrubbed(text: str) -> str:
    """Gives a text without the secrets that the environment holds."""
    for name in _SECRETS:
        secret = os.environ.get(name)
        if secret:
            text = text.replace(secret, f"[{name}]")
    return text


def _without_user(address: str) -> str:
    return re.sub(r"(?<=://)[^/]*@", "", address)
