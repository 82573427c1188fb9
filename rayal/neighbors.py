"""K-means centroids, nearest rows, and who is nearest to what. The only door to faiss, opened when
needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rayal.errors import ConfigError, ScoringError
from rayal.types import Float64s

Float32s = npt.NDArray[np.float32]

_PRODUCTS = 1 << 20  # distances a block: 8 MiB of float64, near the size of a cache
_BLOCK_ROWS = 16_384  # of an index that is being filled
_MORE = 16  # rows beyond those asked for, so that rounding is seldom in doubt


def train_kmeans(
    sample_MD: npt.ArrayLike, num_clusters: int, seed: int, num_iterations: int = 10
) -> Float32s:
    """Gives (K, D) float32 centroids of a sample. O(M K D) an iteration, on one thread.

    The same sample in the same order gives the same bits: faiss runs on one thread and looks at
    every row. Centroids start from a Markov chain's approximation of k-means++ (AFK-MC2: Bachem et
    al., Fast and Provably Good Seedings for k-Means, NeurIPS 2016), which misses hardly a cluster
    where random starts miss many. 64 rows a centroid are enough: on average 1 to 2 % above the
    objective of 500 rows, at an eighth of the time (`benchmarks/select.py --only k_means`). A
    sample of fewer rows than clusters gives one centroid a row.

    Raises:
        ConfigError: faiss is not installed.
        ScoringError: the sample holds NaN or infinite numbers.
        ValueError: the sample is empty, or `num_clusters` is below 1.
    """
    sample = np.ascontiguousarray(sample_MD, np.float32)
    if sample.ndim != 2 or not len(sample) or num_clusters < 1:
        raise ValueError(
            f"found a sample of shape {sample.shape} for {num_clusters} clusters, expected (M, D) "
            "with M of at least 1 and at least one cluster"
        )
    if not np.isfinite(sample).all():
        rows = int((~np.isfinite(sample).all(axis=1)).sum())
        raise ScoringError(
            f"{rows} of {len(sample)} rows of the k-means sample hold NaN or infinite numbers, "
            "expected finite features; check the predictor's embeds"
        )
    if len(sample) <= num_clusters:
        return sample.copy()
    faiss = _faiss("k-means")
    num_threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # partial sums of several threads would change the last bits
    try:
        kmeans = faiss.Kmeans(
            sample.shape[1],
            num_clusters,
            niter=num_iterations,
            seed=seed & 0x7FFFFFFF,
            min_points_per_centroid=1,
            max_points_per_centroid=len(sample),  # never a subsample that we did not draw
            init_method=faiss.ClusteringInitMethod_AFK_MC2,
        )
        kmeans.train(sample)
    finally:
        faiss.omp_set_num_threads(num_threads)
    return np.array(kmeans.centroids, np.float32)


def assign(
    points_ND: npt.ArrayLike, centroids_KD: npt.ArrayLike
) -> tuple[npt.NDArray[np.int64], Float64s]:
    """Gives (N,) int64 nearest centroids and (N,) float64 squared distances. O(N K D), as GEMM.

    Ties go to the lowest cluster. Distances are float64 and never negative; where all coordinates
    are integers with squared distances below 2^53 (`rayal.selectors.grid`) they are exact, and so
    do not depend on blocks, threads or the library.
    """
    points, centroids = np.asarray(points_ND), np.asarray(centroids_KD, np.float64)
    if not len(centroids) or points.ndim != 2 or points.shape[1] != centroids.shape[1]:
        raise ValueError(
            f"found points of shape {points.shape} and centroids of shape {centroids.shape}, "
            "expected (N, D) and (K, D) with K of at least 1"
        )
    clusters = np.empty(len(points), np.int64)
    squared = np.empty(len(points), np.float64)
    norms_K = np.einsum("kd,kd->k", centroids, centroids)
    rows = max(1, _PRODUCTS // len(centroids))
    for lo in range(0, len(points), rows):
        block = np.asarray(points[lo : lo + rows], np.float64)
        partial_nK = norms_K - 2.0 * (block @ centroids.T)
        nearest = partial_nK.argmin(axis=1)  # the first of equals: the lowest cluster
        clusters[lo : lo + rows] = nearest
        norms = np.einsum("nd,nd->n", block, block)
        squared[lo : lo + rows] = norms + partial_nK[np.arange(len(block)), nearest]
    return clusters, np.maximum(squared, 0.0)


class NeighborIndex:
    """The nearest of some rows, by faiss, and exactly in the order of their distances.

    A flat index looks at every row in float32. It only says which rows may be near: the distances
    that count are sums over float64 differences, each pair by itself and in one order, and the
    search widens until the rounding of float32 cannot hide a row. So a distance depends on its two
    rows alone, and never on what other rows are there. O(N Q D) time for Q queries, 4 N D bytes.

    With `num_lists` the rows lie in so many lists, by nearest centroid (k-means of 64 rows a list),
    and a query looks at `num_probes` of them: faster where queries are many more than lists, and
    approximate; who is found then depends on all rows of the index. 8 bytes a row more.

    Raises:
        ConfigError: faiss is not installed.
    """

    def __init__(
        self, points_ND: npt.ArrayLike, num_lists: int = 0, num_probes: int = 1, seed: int = 0
    ) -> None:
        self._faiss = faiss = _faiss("a search for neighbors")
        self.points = np.asarray(points_ND)
        width = self.points.shape[1]
        self._origin, self._scale, self._radius = np.zeros(width), 1.0, 0.0
        if len(self.points):
            self._origin = self.points.mean(axis=0, dtype=np.float64)
            reach = max(_reach(self.points[b] - self._origin) for b in _slices(len(self.points)))
            self._scale = float(np.ldexp(1.0, -int(np.frexp(reach)[1]))) if reach else 1.0
            self._radius = reach * self._scale
        self._is_flat = not 0 < num_lists < len(self.points)
        self._index = faiss.IndexFlatL2(width)
        if not self._is_flat:
            most = 64 * num_lists
            some = np.linspace(0, len(self.points) - 1, min(most, len(self.points))).astype(int)
            self._index.add(train_kmeans(self._moved(self.points[some]), num_lists, seed))
            self._lists = self._index  # the inverted file does not own it
            self._index = faiss.IndexIVFFlat(self._lists, width, self._lists.ntotal)
            self._index.nprobe = num_probes
        for block in _slices(len(self.points)):
            self._index.add(self._moved(self.points[block]))

    def nearest(
        self, queries_QD: npt.ArrayLike, num_rows: int
    ) -> tuple[npt.NDArray[np.int64], Float64s]:
        """Gives (Q, k) places and (Q, k) squared distances, nearest first, of equals the first.

        k is `num_rows`, or as many rows as there are. Where lists hold fewer, the last places are
        -1, at an infinite distance.
        """
        queries = np.asarray(queries_QD, np.float64)
        num_rows = min(num_rows, len(self.points))
        places = np.full((len(queries), num_rows), -1, np.int64)
        squared = np.full((len(queries), num_rows), np.inf)
        todo, width = np.arange(len(queries)), min(num_rows + _MORE, len(self.points))
        while len(todo) and num_rows:
            unsure = []
            size = max(1, _PRODUCTS // width)
            for lo in range(0, len(todo), size):
                some = todo[lo : lo + size]
                far, found = self._search(queries[some], width)
                exact = self._exact(queries[some], found)
                order = np.lexsort((found, exact), axis=1)[:, :num_rows]
                places[some] = np.take_along_axis(found, order, axis=1)
                squared[some] = np.take_along_axis(exact, order, axis=1)
                if self._is_flat and width < len(self.points):
                    least = (far[:, -1] - self._error(queries[some])) / self._scale**2
                    unsure.append(some[~(squared[some, -1] < least)])
            todo = np.concatenate([np.empty(0, np.int64), *unsure])
            width = min(4 * width, len(self.points))
        return places, squared

    def _search(self, queries_QD: Float64s, width: int) -> tuple[Float32s, npt.NDArray[np.int64]]:
        variables = self._faiss.cvar
        before = variables.distance_compute_blas_threshold
        # faiss 1.15 multiplies matrices from 128,000 queries on; below, six times the time (512
        # queries, 200,000 x 128).
        variables.distance_compute_blas_threshold = 20
        try:
            far, found = self._index.search(self._moved(queries_QD), width)
        finally:
            variables.distance_compute_blas_threshold = before
        return far, found

    def _moved(self, rows: npt.ArrayLike) -> Float32s:
        moved = (np.asarray(rows, np.float64) - self._origin) * self._scale
        return np.ascontiguousarray(moved, np.float32)

    def _error(self, queries_QD: Float64s) -> Float64s:
        """Gives (Q,) by how much float32 may miss a squared distance, input and sums rounded."""
        norms_Q = np.sqrt(np.einsum("qd,qd->q", *[(queries_QD - self._origin) * self._scale] * 2))
        return (queries_QD.shape[1] + 16) * 2.0**-23 * (self._radius + norms_Q) ** 2

    def _exact(self, queries_QD: Float64s, places_QK: npt.NDArray[np.int64]) -> Float64s:
        squared = np.full(places_QK.shape, np.inf)
        query, column = np.nonzero(places_QK >= 0)
        size = max(1, _PRODUCTS // max(1, queries_QD.shape[1]))
        for lo in range(0, len(query), size):
            q, k = query[lo : lo + size], column[lo : lo + size]
            apart = self.points[places_QK[q, k]] - queries_QD[q]
            squared[q, k] = np.einsum("nd,nd->n", apart, apart)
        return squared


def _slices(num_rows: int) -> list[slice]:
    return [slice(lo, lo + _BLOCK_ROWS) for lo in range(0, num_rows, _BLOCK_ROWS)]


def _reach(rows_nD: Float64s) -> float:
    return float(np.sqrt(np.einsum("nd,nd->n", rows_nD, rows_nD).max()))


def _faiss(what: str) -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(
            f"{what} needs faiss, which is not installed here; pip install 'faiss-cpu>=1.12', or "
            "take a strategy without clusters or neighbors (margin, k_center, badge)"
        ) from error
    return faiss
