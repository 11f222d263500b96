"""Randomness without state: every draw is a function of (seed, stream, epoch or step, position).

A generator that advances must be saved, restored and kept in step with workers and batch boundaries; a hash needs
none of that. The key of a stream is the first 64 bits of a SHA-256; the n-th number of a stream is the n-th output
of SplitMix64 started at that key, which can be computed for any n at once. numpy's own generators are not used
because their streams may change between versions.

Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (the mixing constants
are variant 13 of Stafford).
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def stream_key(seed: int, stream: str, index: int) -> int:
    """The 64-bit key of one stream.

    Args:
        seed: of the run.
        stream: what the numbers are for, such as "flip"; streams never share numbers.
        index: epoch or step.
    """
    digest = hashlib.sha256(f"{seed}/{stream}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def bits(key: int, positions: NDArray[np.integer], draws: int = 1) -> NDArray[np.uint64]:
    """`draws` 64-bit numbers for every position, the same whichever other positions are asked for.

    Args:
        key: of the stream, see `stream_key`.
        positions: [N] integers >= 0.
        draws: numbers per position; a stream must always be read with the same value.

    Returns:
        uint64 [N, draws].
    """
    counters = positions.astype(np.uint64)[:, None] * np.uint64(draws) + np.arange(1, draws + 1, dtype=np.uint64)
    state = np.uint64(key) + counters * _GOLDEN  # arrays wrap around modulo 2^64, as the generator wants
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))


def uniforms(key: int, positions: NDArray[np.integer], draws: int = 1) -> NDArray[np.float64]:
    """`draws` numbers in [0, 1) with 53 random bits for every position; arguments as in `bits`."""
    return (bits(key, positions, draws) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(key: int, length: int) -> NDArray[np.int64]:
    """An order of 0 ... length - 1, int64 [length]: the ranks of `length` hashes."""
    return np.argsort(bits(key, np.arange(length))[:, 0], kind="stable").astype(np.int64)


def permutations(key: int, rows: NDArray[np.integer], length: int) -> NDArray[np.int64]:
    """One order of 0 ... length - 1 for every row, the same whichever other rows are asked for.

    Args:
        key: of the stream, see `stream_key`.
        rows: [N] integers >= 0.
        length: at least 1; a stream must always be read with the same one.

    Returns:
        int64 [N, length].
    """
    return np.argsort(bits(key, rows, length), axis=1, kind="stable").astype(np.int64)


def beta(uniforms: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Numbers of the symmetric distribution Beta(alpha, alpha), two draws each.

    Source: Devroye, "Random variate generation in one line of code", WSC 1996 (by Bailey's polar method for Student's
    t with 2 alpha degrees of freedom, of which this is a function): exact for every alpha, without rejection.

    Args:
        uniforms: [N,2] in [0, 1).
        alpha: above 0.

    Returns:
        float64 [N] in [0, 1].
    """
    radius = 1.0 - uniforms[:, 0]  # (0, 1]
    turn = np.cos(2.0 * np.pi * uniforms[:, 1])
    with np.errstate(over="ignore", divide="ignore"):  # an infinite t is an end of the interval
        t = np.sqrt(np.expm1(-np.log(radius) / alpha)) * turn
        return 0.5 + 0.5 * np.sign(t) / np.sqrt(1.0 + 1.0 / (t * t))
