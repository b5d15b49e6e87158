"""Random numbers that depend on nothing but a name or a seed: the same on every machine, in every order."""

import hashlib
from collections.abc import Sequence

import numpy as np


def key_of(id_str: str) -> int:
    """63 bits that look random and depend on the galaxy's name alone."""
    digest = hashlib.sha256(f"bootstrap of {id_str}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch has no unsigned integers to speak of


def hashed_place(id_str: str) -> float:
    """A number in [0, 1) that looks random but depends on nothing but the galaxy's name."""
    return int.from_bytes(hashlib.sha256(id_str.encode()).digest()[:8], "big") / 2**64


GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: the step of SplitMix64


def uniforms(seed: int, positions: Sequence[int], draws: int) -> np.ndarray:
    """(B, draws) random numbers in [0, 1): those of a position depend on it and the seed alone.

    A generator for each position would cost as much as a tenth of decoding its picture; SplitMix64 (Steele, Lea and Flood
    2014, doi 10.1145/2660193.2660195), whose state is a counter, gives those of a whole batch at once.
    """
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        start = split_mix(np.uint64(seed) + GOLDEN) + np.asarray(positions, dtype=np.uint64)[:, None] * np.uint64(draws)
        bits = split_mix((start + np.arange(draws, dtype=np.uint64)) * GOLDEN)
    return (bits >> np.uint64(11)) / 2.0**53


def split_mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
