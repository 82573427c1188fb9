"""A column of URIs as if it held the bytes that they lead to."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from rayal.errors import ConfigError, PoolError
from rayal.models.fetch import Limits, Unfetchable, fetch
from rayal.models.transform import Inputs, Transform, Undecodable
from rayal.places import shown

_NUM_REASONS = 3


class Fetched:
    """Gives what `transform` gives where its column `column` is fetched, row by row.

    `uri` names the pool's column of http(s)://, s3://, gs:// and file:// URIs, or of paths below
    `root`. At most `at_once` fetches are under way; what came last, up to `cache_bytes`, is kept,
    so that the epochs of a training fetch a row once. What the URIs lead to is no part of the
    pool's content hash: picks are the same only while it is.

    Raises:
        Undecodable: a URI is null, gives nothing in time, a size above `max_bytes`, another
            content type, or bytes that the transform cannot decode.
        PoolError: the column is missing or no text, or a path leaves its root.
        ConfigError: an argument is out of its range.
    """

    def __init__(
        self,
        transform: Transform,
        uri: str = "uri",
        column: str = "image",
        root: str | None = None,
        at_once: int = 16,
        timeout_s: float = 10.0,
        retries: int = 2,
        max_bytes: int = 64 << 20,
        content_types: Sequence[str] = ("image/", "application/octet-stream", "binary/"),
        cache_bytes: int = 256 << 20,
    ) -> None:
        if column not in transform.columns:
            raise ConfigError(
                f"Fetched got column={column}, which its transform does not read (it reads: "
                f"{', '.join(transform.columns)}); name one of these"
            )
        if at_once < 1 or timeout_s <= 0 or retries < 0 or max_bytes < 1 or cache_bytes < 0:
            raise ConfigError(
                f"Fetched got at_once={at_once}, timeout_s={timeout_s}, retries={retries}, "
                f"max_bytes={max_bytes}, cache_bytes={cache_bytes}; expected 1 or more, above 0, 0 "
                "or more, 1 or more, 0 or more"
            )
        self.transform, self.uri, self.column, self.root = transform, uri, column, root
        self.at_once, self.cache_bytes = at_once, cache_bytes
        self.limits = Limits(timeout_s, retries, max_bytes, tuple(content_types))
        self._forget()

    def _forget(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if not k.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of URIs, and those of the transform that are not fetched."""
        others = [name for name in self.transform.columns if name != self.column]
        return tuple(dict.fromkeys([self.uri, *others]))

    def __call__(self, rows: pa.RecordBatch) -> Inputs:
        """Gives the transform's tensors."""
        if self.uri not in rows.schema.names:
            raise PoolError(
                f"the pool has no column '{self.uri}' (it has: {', '.join(rows.schema.names)}); "
                "name the right one in the transform"
            )
        column = rows.column(self.uri)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise PoolError(f"column '{self.uri}' is {column.type}, expected text: URIs or paths")
        uris = column.to_pylist()
        with ThreadPoolExecutor(self.at_once) as threads:
            wanted = list(dict.fromkeys(uri for uri in uris if uri))
            found = dict(zip(wanted, threads.map(self._fetched, wanted), strict=True))
        values = [found.get(uri, "it is null") for uri in uris]
        bad = {at: value for at, value in enumerate(values) if isinstance(value, str)}
        content = pa.array([v if isinstance(v, bytes) else None for v in values], pa.binary())
        known = [name for name in rows.schema.names if name != self.column]
        given = pa.RecordBatch.from_arrays(
            [*(rows.column(name) for name in known), content],
            schema=pa.schema(
                [*(rows.schema.field(name) for name in known), pa.field(self.column, pa.binary())]
            ),
        )
        if not bad:
            return self.transform(given)
        reasons = {at: f"{shown(str(uris[at]))}: {said}" for at, said in bad.items()}
        why = _listed(reasons.values())
        try:
            self.transform(given)  # so that its own rows are named too, in one go
        except Undecodable as error:
            also = {at: said for at, said in error.by_position.items() if at not in bad}
            reasons |= {at: f"{shown(str(uris[at]))}: {said}" for at, said in also.items()}
            why += f"; {error.why}" * bool(also)
        raise Undecodable(
            sorted(reasons),
            f"column '{self.uri}' leads to nothing there: {why}",
            [reasons[at] for at in sorted(reasons)],
        )

    def _fetched(self, uri: str) -> bytes | str:
        """Gives the bytes, or why there are none."""
        with self._lock:
            if uri in self._kept:
                self._kept.move_to_end(uri)
                return self._kept[uri]
        try:
            content = fetch(uri, self.root, self.limits)
        except Unfetchable as error:
            return str(error)
        with self._lock:
            if uri not in self._kept:
                self._kept[uri] = content
                self._kept_bytes += len(content)
            while self._kept_bytes > self.cache_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._kept_bytes -= len(oldest)
        return content


def _listed(reasons: Any) -> str:
    known = list(dict.fromkeys(reason[:200] for reason in reasons))
    return "; ".join(known[:_NUM_REASONS]) + "; ..." * (len(known) > _NUM_REASONS)
