"""Filesystems by URL, opened once a process: pyarrow's own, else what fsspec has."""

from __future__ import annotations

import datetime
import functools
import os
from typing import Any

import pyarrow as pa
import pyarrow.fs as pa_fs

from rayal.errors import PlaceError
from rayal.places import settings
from rayal.places.by_fsspec import ByFsspec
from rayal.places.patience import patiently, refused

# Attempts at one part of a large file, within an attempt at all of it: of a thousand parts, one
# that is told to slow down must not cost the other 999.
_PART_ATTEMPTS = 5
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure"}


def filesystem(url: str, for_parts: bool = False) -> tuple[pa_fs.FileSystem, str]:
    """Gives the filesystem of a URL and the path in it. Nothing is asked of a store yet, but in
    which region an S3 bucket lies, where the environment does not say.

    Raises:
        PlaceError: nobody knows the scheme, or what it needs is not installed.
    """
    root, path = _split(url)
    opened, base = _opened(root, for_parts, _environment())
    return opened, "/".join(part for part in (base.rstrip("/"), path) if part)


def creating(url: str) -> tuple[Any, str]:
    """Gives fsspec's filesystem of a URL, for what pyarrow's has not: to write where nothing is.

    Raises:
        PlaceError: the package that it needs is not installed.
    """
    scheme = url.partition("://")[0]
    try:
        return _creating(_split(url)[0], _environment()), url
    except (ImportError, ValueError) as error:
        _refuse_unknown(url, error)
        extra = _EXTRAS.get(scheme)
        how = (
            f"pip install 'rayal[{extra}]'" if extra else f"install what fsspec needs for {scheme}"
        )
        raise PlaceError(
            f"{url}: to write a file only where none is yet, as locks are, {scheme}:// needs a "
            f"package that is not installed ({_line(error)}); {how}"
        ) from error


@functools.lru_cache(maxsize=64)
def _opened(root: str, for_parts: bool, environment: Any) -> tuple[pa_fs.FileSystem, str]:
    scheme, _, rest = root.partition("://")
    if scheme in ("s3", "s3a"):
        return _s3(rest, for_parts), rest
    try:
        if scheme in ("gs", "gcs"):
            return _gcs(), rest
        found, path = pa_fs.FileSystem.from_uri(root)
        return found, path
    except pa.ArrowInvalid:
        pass  # a scheme that pyarrow does not know
    except OSError as error:  # one whose libraries are not here, such as Hadoop's
        raise PlaceError(
            f"{root} cannot be opened ({_line(error)}); install what pyarrow needs for it, or "
            "name a folder, or a URL such as s3://bucket/folder"
        ) from error
    try:
        other, path = _by_fsspec(root)
    except (ImportError, ValueError, OSError) as error:
        _refuse_unknown(root, error)
        extra = _EXTRAS.get(scheme)
        how = f"pip install 'rayal[{extra}]', or name" if extra else "name"
        raise PlaceError(
            f"{root}: neither pyarrow nor fsspec can open it ({_line(error)}); {how} a folder, or "
            "a URL such as s3://bucket/folder"
        ) from error
    return pa_fs.PyFileSystem(ByFsspec(other, settings.is_store(root))), path


def _by_fsspec(root: str) -> tuple[Any, str]:
    import fsspec

    # Listings and instances that are kept say what was there before.
    fresh = {"use_listings_cache": False, "skip_instance_cache": True}
    return fsspec.core.url_to_fs(root, **(fresh if settings.is_store(root) else {}))


def _refuse_unknown(url: str, error: BaseException) -> None:
    """Refuses a store whose package is there, and finds no credentials.

    Raises:
        PlaceError: it is.
    """
    if not isinstance(error, ImportError) and settings.is_store(url):
        raise refused(url, _line(error)) from error


def _gcs() -> pa_fs.GcsFileSystem:
    limit = datetime.timedelta(seconds=1)  # its own default is 15 minutes
    server = settings.gcs_endpoint()
    if server is None:
        return pa_fs.GcsFileSystem(retry_time_limit=limit)
    scheme, _, address = server.rpartition("://")
    return pa_fs.GcsFileSystem(
        anonymous=True,
        scheme=scheme or "http",
        endpoint_override=address,
        retry_time_limit=limit,
    )


def _s3(bucket: str, for_parts: bool) -> pa_fs.FileSystem:
    region = settings.region()
    if region is None and settings.endpoint() is None:
        region = patiently(f"s3://{bucket}", lambda: pa_fs.resolve_s3_region(bucket))
    return pa_fs.S3FileSystem(
        endpoint_override=settings.endpoint(),
        region=region or "us-east-1",
        connect_timeout=5,
        request_timeout=60,
        # Also because with False, closing what failed to be written makes an object of the parts
        # that did not fail (pyarrow 26).
        background_writes=True,
        allow_delayed_open=True,  # what is small is one request
        retry_strategy=pa_fs.AwsStandardS3RetryStrategy(
            max_attempts=_PART_ATTEMPTS if for_parts else 1
        ),
    )


@functools.lru_cache(maxsize=64)
def _creating(root: str, environment: Any) -> Any:
    scheme = root.partition("://")[0]
    if scheme in ("s3", "s3a"):
        import s3fs

        made = s3fs.S3FileSystem(
            endpoint_url=settings.endpoint(),
            client_kwargs={"region_name": settings.region()},
            config_kwargs={
                "retries": {"total_max_attempts": 1},
                "connect_timeout": 5,
                "read_timeout": 60,
            },
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        made.retries = 1  # its own waits cannot be bounded
        return made
    return _by_fsspec(root)[0]


def _split(url: str) -> tuple[str, str]:
    scheme, _, rest = url.partition("://")
    bucket, _, path = rest.partition("/")
    return f"{scheme}://{bucket}", path.strip("/")


def _environment() -> tuple[str | None, ...]:
    names = (
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"),
        *settings.of("abfs://").all_names,
    )
    where = settings.endpoint(), settings.region(), settings.gcs_endpoint()
    return (*(os.environ.get(name) for name in names), *where)


def _line(error: BaseException) -> str:
    return settings.scrubbed(" ".join(str(error).split())[:200]) or type(error).__name__
