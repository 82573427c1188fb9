import subprocess
import sys

import numpy as np
import pytest

from rayal.errors import ConfigError, ScoringError
from rayal.neighbors import assign, train_kmeans


def textbook(points, centroids):
    squared = ((points[:, None, :].astype(float) - centroids[None].astype(float)) ** 2).sum(axis=2)
    return squared.argmin(axis=1), squared.min(axis=1)


@pytest.mark.parametrize(("n", "k", "d"), [(1, 1, 1), (500, 7, 5), (3000, 400, 16)])
def test_assign_matches_all_pairs(n, k, d):
    rng = np.random.default_rng(n)
    points = rng.standard_normal((n, d)).astype(np.float32)
    centroids = rng.standard_normal((k, d)).astype(np.float32)
    clusters, squared = assign(points, centroids)
    expected, distances = textbook(points, centroids)
    assert clusters.dtype == np.int64
    assert (clusters == expected).all()
    np.testing.assert_allclose(squared, distances, rtol=1e-9, atol=1e-12)


def test_assign_ties_go_to_the_lowest_cluster_whatever_the_block():
    rng = np.random.default_rng(0)
    points = rng.integers(-2, 3, (2000, 3)).astype(np.float32)
    centroids = rng.integers(-2, 3, (600, 3)).astype(np.float32)  # many are twice there
    clusters, squared = assign(points, centroids)
    expected, distances = textbook(points, centroids)
    assert (clusters == expected).all()
    assert (squared == distances).all()
    parts = [assign(points[lo : lo + 7], centroids)[0] for lo in range(0, 2000, 7)]
    assert (np.concatenate(parts) == clusters).all()


def test_assign_refuses_shapes_that_do_not_fit():
    with pytest.raises(
        ValueError, match=r"points of shape \(3, 2\) and centroids of shape \(1, 4\)"
    ):
        assign(np.zeros((3, 2)), np.zeros((1, 4)))


def test_kmeans_finds_far_clusters_and_repeats_its_bits():
    rng = np.random.default_rng(1)
    centers = rng.standard_normal((6, 8)) * 100
    sample = (centers[rng.integers(0, 6, 600)] + rng.standard_normal((600, 8))).astype(np.float32)
    first, again = train_kmeans(sample, 20, seed=5), train_kmeans(sample, 20, seed=5)
    assert first.shape == (20, 8)
    assert first.dtype == np.float32
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != train_kmeans(sample, 20, seed=6).tobytes()
    spread = ((sample - sample.mean(axis=0)) ** 2).sum()
    assert assign(sample, first)[1].sum() < 0.01 * spread


def test_kmeans_starts_far_apart_and_so_misses_hardly_a_cluster():
    rng = np.random.default_rng(1)
    centers = rng.standard_normal((40, 8)) * 100
    sample = centers[rng.integers(0, 40, 4000)] + rng.standard_normal((4000, 8))
    for seed in range(5):
        # All found: 8. One missed: some 160. Random starts miss a quarter of them: over 4,000.
        assert assign(sample, train_kmeans(sample, 40, seed))[1].mean() < 400


def test_kmeans_of_few_rows_gives_the_rows():
    sample = np.arange(6.0).reshape(3, 2)
    assert (train_kmeans(sample, 5, seed=0) == sample).all()
    assert train_kmeans(np.ones((50, 2)), 4, seed=0).shape == (4, 2)  # all the same row


def test_kmeans_refuses_what_it_cannot_cluster():
    sample = np.ones((10, 2))
    sample[3, 1] = np.nan
    with pytest.raises(ScoringError, match="1 of 10 rows of the k-means sample hold NaN"):
        train_kmeans(sample, 2, seed=0)
    with pytest.raises(ValueError, match="at least one cluster"):
        train_kmeans(np.ones((10, 2)), 0, seed=0)
    with pytest.raises(ValueError, match="M of at least 1"):
        train_kmeans(np.ones((0, 2)), 2, seed=0)


def test_without_faiss_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match="pip install 'faiss-cpu"):
        train_kmeans(np.random.default_rng(0).random((9, 2)), 2, seed=0)


def test_faiss_is_not_imported_until_it_is_needed():
    code = "import sys, rayal.neighbors; assert not {'faiss', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
