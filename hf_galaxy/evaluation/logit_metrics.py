"""Labels and logits of galaxies, collected batch by batch. Legend: B galaxies, C classes or labels, R replicates."""

from copy import copy
from typing import Any, Self

import numpy as np
import torch

from hf_galaxy.evaluation import bootstrap


class LogitMetrics:
    """Metrics that need the logits of all galaxies at once; subclasses compute them.

    Args:
        names: of the C classes or labels.
        baseline: (C,) the constant prediction, from the training split.
    """

    def __init__(self, names: list[str], baseline: torch.Tensor) -> None:
        self.names, self.baseline = names, baseline
        self.parts: dict[str, list[torch.Tensor]] = {"labels": [], "logits": [], "keys": []}

    def update(self, batch: dict[str, torch.Tensor], outputs: Any) -> None:
        """Add a batch: `labels` and perhaps `keys` (B,) of the batch, `logits` (B, C) of the outputs."""
        self.parts["labels"].append(batch["labels"])
        self.parts["logits"].append(outputs.logits)
        if "keys" in batch:
            self.parts["keys"].append(batch["keys"])

    def cpu(self) -> Self:
        """Move the batches off the device, to be sent to other processes."""
        self.parts = {name: [each.cpu() for each in parts] for name, parts in self.parts.items()}
        self.parts["logits"] = [logits.float() for logits in self.parts["logits"]]
        return self

    def __add__(self, other: Self) -> Self:
        joined = copy(self)
        joined.parts = {name: parts + other.parts[name] for name, parts in self.parts.items()}
        return joined

    @property
    def labels(self) -> torch.Tensor:
        """Those of all galaxies."""
        return torch.cat(self.parts["labels"])

    @property
    def logits(self) -> torch.Tensor:
        """(B, C) of all galaxies."""
        return torch.cat(self.parts["logits"])

    @property
    def times(self) -> np.ndarray | None:
        """(B, R) how often each galaxy counts in each replicate of a bootstrap; None without keys."""
        return bootstrap.counts(torch.cat(self.parts["keys"]).numpy()) if self.parts["keys"] else None
