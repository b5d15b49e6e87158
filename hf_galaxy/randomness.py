"""Random numbers that depend only on a name or a seed: the same on every machine, in every order. Legend: B positions."""

import hashlib
from collections.abc import Sequence

import numpy as np


def key_of(id_str: str) -> int:
    """63 bits that look random, and depend only on the galaxy's name."""
    digest = hashlib.sha256(f"bootstrap of {id_str}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch has no arithmetic of unsigned integers


def hashed_place(id_str: str) -> float:
    """A number in [0, 1) that looks random, and depends only on the galaxy's name."""
    return int.from_bytes(hashlib.sha256(id_str.encode()).digest()[:8], "big") / 2**64


def seed_for(purpose: str, seed: int) -> int:
    """64 bits: another seed for each purpose, so that what is drawn for one leaves what is drawn for the others as it is."""
    return int.from_bytes(hashlib.sha256(f"{purpose} of seed {seed}".encode()).digest()[:8], "big")


GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: the step of SplitMix64


def uniforms(seed: int, positions: Sequence[int], draws: int) -> np.ndarray:
    """(B, draws) random numbers in [0, 1); those of a position depend only on it and the seed.

    A generator for each position would take a tenth of the time of decoding its picture. The state of SplitMix64 is a
    counter, so that the numbers of a whole batch can be computed at once.
    """
    with np.errstate(over="ignore"):  # arithmetic is modulo 2**64
        start = split_mix(np.asarray(np.uint64(seed) + GOLDEN)) + np.asarray(positions, dtype=np.uint64)[
            :, None
        ] * np.uint64(draws)
        bits = split_mix((start + np.arange(draws, dtype=np.uint64)) * GOLDEN)
    return to_unit_interval(bits)


def to_unit_interval(bits: np.ndarray) -> np.ndarray:
    """uint64 -> float64 in [0, 1), from the upper 53 bits."""
    return (bits >> np.uint64(11)) / 2.0**53


def split_mix(z: np.ndarray) -> np.ndarray:
    """uint64 -> uint64: the output function of SplitMix64 (Steele, Lea and Flood 2014, doi 10.1145/2660193.2660195).

    It passes the usual tests of randomness. Its arithmetic is modulo 2**64: call it within np.errstate(over="ignore").
    """
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
