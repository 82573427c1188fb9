"""The gate that rows pass before a vendor sees them: which columns leave, under which ids.

Nothing leaves that was not named. An adapter is handed what came through and answers by the ids in
it, so that no adapter can say more than it may.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from rayal.errors import ConfigError, LabelError
from rayal.types import PICK_COLUMNS, Ids

ALL = "all"
_SAFE = 2**53  # above it JavaScript and spreadsheets round a whole number
_SHORTEST_KEY = 16  # bytes


class Redaction(Protocol):
    """Makes rows fit to leave: masks names in text, blurs faces in images."""

    def redact(self, rows: pa.Table) -> pa.Table:
        """Gives the same rows in the same order with the same columns, and other values."""
        ...


class Gate:
    """What one vendor may be told.

    columns     payload columns that leave, `source_id` only where it is named; "all": every one,
                but never why a row was picked: that would bias whoever labels
    pseudonyms  the environment variable with the secret (at least 16 bytes) that sample ids are
                hashed with (HMAC-SHA256, cut to 53 bits); None: ids leave as they are
    redact      what is done to the columns that leave
    """

    def __init__(
        self,
        columns: Sequence[str] | str | None,
        pseudonyms: str | None = None,
        redact: Redaction | None = None,
    ) -> None:
        if isinstance(columns, str) and columns != ALL:
            raise ConfigError(f"labeler.columns is '{columns}'; give a list: [{columns}]")
        self.columns = columns if columns is None or isinstance(columns, str) else tuple(columns)
        self.pseudonyms, self.redact = pseudonyms, redact

    def check(self, names: Sequence[str]) -> None:
        """Refuses a gate that cannot work, before anything is ordered.

        Raises:
            ConfigError: no columns were named, one is not among `names`, or there is no secret.
        """
        try:
            self.leaving(names)
            if self.pseudonyms is not None:
                _secret(self.pseudonyms)
        except LabelError as error:
            raise ConfigError(str(error)) from None

    def leaving(self, names: Sequence[str]) -> list[str]:
        """Gives the columns that leave, of those a batch has, `sample_id` first.

        Raises:
            LabelError: none were named, or one is not there.
        """
        there = [name for name in names if name != "sample_id"]
        if self.columns is None:
            some = ", ".join(name for name in there if name not in PICK_COLUMNS)
            raise LabelError(
                "nothing leaves for a vendor that is not named: give labeler.columns, such as "
                f"'labeler.columns=[{some}]' (those of the pool), or labeler.columns={ALL}"
            )
        if self.columns == ALL:
            return _ids_first(name for name in there if name not in PICK_COLUMNS)
        unknown = [name for name in self.columns if name not in names]
        if unknown:
            raise LabelError(
                f"the labeler is to send {', '.join(unknown)}, which the batch does not have (it "
                f"has: {', '.join(names)}); correct labeler.columns"
            )
        return _ids_first(self.columns)

    def passed(self, rows: pa.Table, left: Ids | None = None) -> pa.Table:
        """Gives the rows as they leave, in the same order; under the ids `left` where they are part
        of a batch whose ids are known.

        Raises:
            LabelError: a column is not there, or the redaction changed rows or columns.
        """
        let = rows.select(self.leaving(rows.schema.names))
        if self.redact is not None:
            redacted = self.redact.redact(let)
            kept = redacted.schema.names == let.schema.names and redacted.num_rows == let.num_rows
            if not kept or not redacted.column("sample_id").equals(let.column("sample_id")):
                raise LabelError(
                    f"labeler.redact ({type(self.redact).__name__}) gave {redacted.num_rows} rows "
                    f"of {', '.join(redacted.schema.names)} for {let.num_rows} rows of "
                    f"{', '.join(let.schema.names)}; it must keep rows, their order and columns"
                )
            let = redacted
        given = np.asarray(rows.column("sample_id"), np.int64)
        ids = self.ids(given) if left is None else left
        return let.set_column(0, "sample_id", pa.array(ids, pa.int64()))

    def ids(self, ids_L: Ids) -> Ids:
        """Gives (L,) the ids that these samples of one batch leave under, all different.

        Two that hash alike are told apart by another hash of the higher: the same for a batch in
        any order.
        """
        if self.pseudonyms is None:
            return ids_L
        secret = _secret(self.pseudonyms)
        order = np.argsort(ids_L, kind="stable")
        given = np.empty(len(ids_L), np.int64)
        taken: set[int] = set()
        for place in order.tolist():
            attempt = 0
            while (name := _pseudonym(secret, int(ids_L[place]), attempt)) in taken:
                attempt += 1
            taken.add(name)
            given[place] = name
        return given


def _ids_first(names: Iterable[str]) -> list[str]:
    wanted = list(dict.fromkeys(names))
    first = ["sample_id", *(name for name in wanted if name == "source_id")]
    return [*first, *(name for name in wanted if name not in first)]


def _pseudonym(secret: bytes, sample_id: int, attempt: int) -> int:
    digest = hmac.digest(secret, f"{sample_id}/{attempt}".encode(), hashlib.sha256)
    return int.from_bytes(digest[:8], "big") % _SAFE


def _secret(name: str) -> bytes:
    found = os.environ.get(name, "").encode()
    if len(found) < _SHORTEST_KEY:
        raise LabelError(
            f"labeler.pseudonyms names the environment variable {name}, which has "
            f"{len(found)} bytes; set it to a secret of at least {_SHORTEST_KEY}, and keep it: "
            "without it answers cannot be joined to their samples"
        )
    return found
