"""The votes of a random sample of galaxies, which can be collected in batches and by several processes. Legend: B galaxies, A answers."""

from typing import Self

import numpy as np
import torch


class VoteSample:
    """The votes of the galaxies with the smallest keys, which are random (`randomness.key_of`); of all galaxies if there are no more than `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.parts: list[tuple[torch.Tensor, torch.Tensor]] = []  # keys and votes
        self.size = 0

    def add(self, keys: torch.Tensor, votes: torch.Tensor) -> None:
        """Add keys (B,) and votes (B, A)."""
        self.parts.append((keys, votes.to(torch.int32)))
        self.size += len(keys)
        if self.size > 2 * self.most:
            self._choose()

    def cpu(self) -> Self:
        """Move it off the device, to be sent to other processes."""
        self._choose()
        self.parts = [(keys.cpu(), votes.cpu()) for keys, votes in self.parts]
        return self

    def __add__(self, other: "VoteSample") -> "VoteSample":
        joined = VoteSample(self.most)
        for keys, votes in (*self.parts, *other.parts):
            joined.add(keys, votes)
        return joined

    def galaxies(self) -> tuple[np.ndarray, np.ndarray]:
        """(B,) keys, in their order, and (B, A) votes, the same however they were collected."""
        self._choose()
        if not self.parts:
            return np.empty(0, np.int64), np.empty((0, 0), np.int32)
        ((keys, votes),) = self.parts
        return keys.cpu().numpy(), votes.cpu().numpy()

    def _choose(self) -> None:
        if self.parts:
            keys, votes = (torch.cat(each) for each in zip(*self.parts, strict=True))
            chosen = keys.argsort(stable=True)[: self.most]
            self.parts, self.size = [(keys[chosen], votes[chosen])], len(chosen)
