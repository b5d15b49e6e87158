"""The votes of a random sample of galaxies, which can be collected in batches and by several processes. Legend: B galaxies, A answers."""

import numpy as np


class VoteSample:
    """The votes of the galaxies with the smallest keys, which are random (`randomness.key_of`); of all galaxies if there are no more than `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.parts: list[tuple[np.ndarray, np.ndarray]] = []  # keys and votes
        self.size = 0

    def add(self, keys: np.ndarray, votes: np.ndarray) -> None:
        """Add keys (B,) and votes (B, A)."""
        # Copies, as the arrays of a batch may be in memory that is shared with the process that read it.
        self.parts.append((keys.astype(np.int64), votes.astype(np.int32)))
        self.size += len(keys)
        if self.size > 2 * self.most:
            self._choose()

    def __add__(self, other: "VoteSample") -> "VoteSample":
        joined = VoteSample(self.most)
        for keys, votes in (*self.parts, *other.parts):
            joined.add(keys, votes)
        return joined

    def galaxies(self) -> tuple[np.ndarray, np.ndarray]:
        """(B,) keys, in their order, and (B, A) votes, the same however they were collected."""
        if not self.parts:
            return np.empty(0, np.int64), np.empty((0, 0), np.int32)
        self._choose()
        return self.parts[0]

    def _choose(self) -> None:
        keys, votes = (np.concatenate(each) for each in zip(*self.parts, strict=True))
        chosen = keys.argsort(kind="stable")[: self.most]
        self.parts, self.size = [(keys[chosen], votes[chosen])], len(chosen)
