"""Counter-based randomness: a draw is a function of (seed, round, stream, sample_id) alone.

Neither worker count nor shard order can change a draw, and two streams are uncorrelated. Draws have
53 bits: with 24-bit uniforms 42 % of the top 10,000 of 1e7 keys were ties (measured).

Reference: SplitMix64 finaliser, Steele et al., Fast Splittable Pseudorandom Number Generators,
OOPSLA 2014.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from rayal.types import Float64s, Ids

if TYPE_CHECKING:
    import torch

_CHUNK = 16_384  # hashing in cache-sized pieces is six times faster than in whole arrays
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_BELOW_ONE = 1.0 - 2.0**-53
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def salt(*parts: object) -> int:
    """Gives a 64-bit number that names a stream; any two different names give unrelated streams."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def hash_u64(stream_salt: int, ids: Ids) -> npt.NDArray[np.uint64]:
    """Gives (N,) uint64, a pure function of the salt and each id. O(N)."""
    ids = np.ascontiguousarray(ids, np.int64).view(np.uint64)
    out = np.empty(len(ids), np.uint64)
    scratch = np.empty(min(_CHUNK, len(ids)), np.uint64)
    for lo in range(0, len(ids), _CHUNK):
        _finalise(ids[lo : lo + _CHUNK], np.uint64(stream_salt), out[lo : lo + _CHUNK], scratch)
    return out


def _finalise(ids: np.ndarray, start: np.uint64, out: np.ndarray, scratch: np.ndarray) -> None:
    scratch = scratch[: len(ids)]
    np.multiply(ids, _GOLDEN, out=out)
    np.add(out, start, out=out)
    for mix, first, last in ((_MIX_1, 30, 0), (_MIX_2, 27, 31)):
        np.right_shift(out, np.uint64(first), out=scratch)
        np.bitwise_xor(out, scratch, out=out)
        np.multiply(out, mix, out=out)
        if last:
            np.right_shift(out, np.uint64(last), out=scratch)
            np.bitwise_xor(out, scratch, out=out)


def uniform(stream_salt: int, ids: Ids) -> Float64s:
    """Gives (N,) float64 in (0, 1), 53 bits each, never 0 or 1."""
    out = np.empty(len(ids), np.float64)
    for lo in range(0, len(ids), _CHUNK):
        bits = hash_u64(stream_salt, ids[lo : lo + _CHUNK]) >> np.uint64(11)
        piece = out[lo : lo + _CHUNK]
        np.add(bits, 0.5, out=piece, casting="unsafe")
        np.multiply(piece, 2.0**-53, out=piece)
        np.minimum(piece, _BELOW_ONE, out=piece)
    return out


@dataclass(frozen=True)
class Stream:
    """One named use of randomness; a method gives one draw an id, in the kind of array it got."""

    salt: int

    @overload
    def uniform(self, ids: Ids) -> Float64s: ...
    @overload
    def uniform(self, ids: torch.Tensor) -> torch.Tensor: ...
    def uniform(self, ids: Ids | torch.Tensor) -> Float64s | torch.Tensor:
        """Gives (N,) float64 in (0, 1)."""
        if isinstance(ids, np.ndarray):
            return uniform(self.salt, ids)
        import torch

        # Drawn on the CPU in float64 whatever the device, so that a GPU run draws the same noise.
        return torch.from_numpy(uniform(self.salt, ids.cpu().numpy())).to(ids.device)

    @overload
    def gumbel(self, ids: Ids) -> Float64s: ...
    @overload
    def gumbel(self, ids: torch.Tensor) -> torch.Tensor: ...
    def gumbel(self, ids: Ids | torch.Tensor) -> Float64s | torch.Tensor:
        """Gives (N,) float64 standard Gumbel noise."""
        if isinstance(ids, np.ndarray):
            return -np.log(-np.log(uniform(self.salt, ids)))
        import torch

        return torch.from_numpy(self.gumbel(ids.cpu().numpy())).to(ids.device)

    def seed(self) -> int:
        """Gives a non-negative int64 seed for a library that keeps its own generator."""
        return self.salt & 0x7FFFFFFFFFFFFFFF


@dataclass(frozen=True)
class Keys:
    """The run's randomness in one round; `keys.stream("power").gumbel(ids)`."""

    seed: int
    round: int

    def stream(self, name: str) -> Stream:
        """Gives the stream of this name; every use of randomness has a name of its own."""
        return Stream(salt("rayal", self.seed, self.round, name))
