"""Made-up embeddings and a made-up classifier's answers, for benchmarks of selection.

The kinds are those of docs/design/selection.md, which names what is hard about each. Rows are made
65,536 at a time, each block from a seed of its own, so that the first rows of a large pool are
those of a small one, and a pool that fits no memory can be written block by block. Needs numpy
alone: the peers' environment imports it, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

Float32s = npt.NDArray[np.float32]

KINDS = ("mixture", "tight", "low", "gauss", "sphere", "lognormal", "wild", "spikes")
_BLOCK = 65_536
_COMPONENTS, _INTRINSIC = 1_000, 32
_SHAPE, _ROWS = 0, 1  # streams of a seed: what the kind looks like, and its rows


def embeddings(kind: str, num_rows: int, width: int, seed: int = 0) -> Float32s:
    """Gives (N, D) float32 rows around 0.

    mixture    1,000 Gaussians with Zipf weights and unequal spread in 32 dimensions, rotated into D
    tight      1,000 well separated clusters of equal weight, in 32 dimensions, rotated into D
    low        a curved 4-dimensional manifold
    gauss      isotropic
    sphere     isotropic directions of norm 1
    lognormal  the mixture, each row times exp(g / 2), g standard normal
    wild       the mixture, each row times exp(g): norms 10,000 times as long as others
    spikes     the mixture, its first coordinate 50 times as large in one row of 1,000
    """
    rows_ND = np.empty((num_rows, width), np.float32)
    lo = 0
    for block_nD in blocks(kind, num_rows, width, seed):
        rows_ND[lo : lo + len(block_nD)] = block_nD
        lo += len(block_nD)
    return rows_ND


def blocks(kind: str, num_rows: int, width: int, seed: int = 0) -> Iterator[Float32s]:
    """Gives the same rows a block at a time."""
    if kind not in KINDS:
        raise ValueError(f"no embeddings of kind '{kind}', expected one of {', '.join(KINDS)}")
    make = _maker(kind, width, np.random.default_rng([seed, _SHAPE]))
    for number, lo in enumerate(range(0, num_rows, _BLOCK)):
        rng = np.random.default_rng([seed, _ROWS, number])
        # Whole blocks whatever the number of rows: the last one's first rows do not depend on it.
        yield make(rng)[: num_rows - lo]


def softmax_head(
    num_rows: int, num_classes: int, width: int, conf: float = 6.0, seed: int = 0
) -> tuple[Float32s, Float32s]:
    """Gives (N, C) probs and (N, D) embeds of a linear classifier.

    Rows lie around the direction of their class, at 0.5 to 2 times its length. The larger `conf`,
    the surer it is: with 100 classes and D = 256 the mean largest probability is .55, .79, .93 and
    .98 at 2, 3, 4.5 and 6.
    """
    rng = np.random.default_rng([seed, _SHAPE])
    means_CD = _normalised(rng.standard_normal((num_classes, width), np.float32))
    probs_NC = np.empty((num_rows, num_classes), np.float32)
    embeds_ND = np.empty((num_rows, width), np.float32)
    for number, lo in enumerate(range(0, num_rows, _BLOCK)):
        rng = np.random.default_rng([seed, _ROWS, number])
        class_n = rng.integers(0, num_classes, _BLOCK)
        far_n1 = 0.5 + 1.5 * rng.random((_BLOCK, 1), np.float32)
        noise_nD = rng.standard_normal((_BLOCK, width), np.float32)
        embeds_nD = means_CD[class_n] * far_n1 + noise_nD / np.float32(np.sqrt(width))
        embeds_nD = embeds_nD[: num_rows - lo]
        logits_nC = embeds_nD @ means_CD.T * np.float32(2.0 * conf)
        logits_nC -= logits_nC.max(axis=1, keepdims=True)
        np.exp(logits_nC, out=logits_nC)
        hi = lo + len(embeds_nD)
        embeds_ND[lo:hi] = embeds_nD
        np.divide(logits_nC, logits_nC.sum(axis=1, keepdims=True), out=probs_NC[lo:hi])
    return probs_NC, embeds_ND


def _maker(
    kind: str, width: int, rng: np.random.Generator
) -> Callable[[np.random.Generator], Float32s]:
    """Gives what makes a block of rows of a kind from a generator."""
    if kind in ("gauss", "sphere"):
        return partial(_isotropic, width, kind == "sphere")
    if kind == "low":
        turns_4D = rng.standard_normal((4, width), np.float32)
        nowhere_D = np.zeros(width, np.float32)
        return partial(_curved, turns_4D, _curved(turns_4D, nowhere_D, rng).mean(axis=0))
    tight = kind == "tight"
    std = 4.0 if tight else 2.0
    ranks_K = np.arange(1, _COMPONENTS + 1)
    weights_K = np.ones(_COMPONENTS) if tight else ranks_K**-0.7
    weights_K = weights_K / weights_K.sum()
    intrinsic = min(_INTRINSIC, width)
    means_KI = std * rng.standard_normal((_COMPONENTS, intrinsic), np.float32)
    spread_K = np.full(_COMPONENTS, 0.5) if tight else 0.6 * (0.5 + rng.random(_COMPONENTS))
    # Around 0, as embeddings are that somebody has centred: not by the mean of the rows, which
    # would tie every row to all others.
    means_KI -= (weights_K @ means_KI).astype(np.float32)
    turn_DI = np.linalg.qr(rng.standard_normal((width, intrinsic)))[0].astype(np.float32)
    plain = partial(_mixed, means_KI, spread_K.astype(np.float32), weights_K, turn_DI)
    if kind in ("lognormal", "wild"):
        return partial(_stretched, plain, np.float32(0.5 if kind == "lognormal" else 1.0))
    return partial(_spiked, plain) if kind == "spikes" else plain


def _isotropic(width: int, normalised: bool, rng: np.random.Generator) -> Float32s:
    rows_nD = rng.standard_normal((_BLOCK, width), np.float32)
    return _normalised(rows_nD) if normalised else rows_nD


def _curved(turns_4D: Float32s, middle_D: Float32s, rng: np.random.Generator) -> Float32s:
    rows_nD: Float32s = np.sin(rng.random((_BLOCK, 4), np.float32) @ turns_4D)
    return rows_nD - middle_D


def _mixed(
    means_KI: Float32s,
    spread_K: Float32s,
    weights_K: npt.NDArray[np.float64],
    turn_DI: Float32s,
    rng: np.random.Generator,
) -> Float32s:
    of_n = np.searchsorted(np.cumsum(weights_K)[:-1], rng.random(_BLOCK), side="right")
    noise_nI = rng.standard_normal((_BLOCK, means_KI.shape[1]), np.float32)
    inner_nI = means_KI[of_n] + spread_K[of_n, None] * noise_nI
    around_nD = rng.standard_normal((_BLOCK, len(turn_DI)), np.float32)
    return inner_nI @ turn_DI.T + np.float32(0.02) * around_nD


def _stretched(
    plain: Callable[[np.random.Generator], Float32s],
    sigma: np.float32,
    rng: np.random.Generator,
) -> Float32s:
    rows_nD = plain(rng)
    return rows_nD * np.exp(sigma * rng.standard_normal((_BLOCK, 1), np.float32))


def _spiked(plain: Callable[[np.random.Generator], Float32s], rng: np.random.Generator) -> Float32s:
    rows_nD = plain(rng)
    rows_nD[rng.random(_BLOCK) < 1e-3, 0] *= 50.0
    return rows_nD


def _normalised(rows_nD: Float32s) -> Float32s:
    return rows_nD / np.linalg.norm(rows_nD, axis=1, keepdims=True)
