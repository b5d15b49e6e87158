"""Whether a galaxy looks like those that a model has learnt from, by what its backbone sees in them.

Deep nearest neighbours (Sun et al. 2022, huggingface.co/papers/2204.06507): how far the features, scaled to length 1, are from
the k-th nearest of the training galaxies. To be small, only some of these are kept, and of their features the leading
principal components and how much there is besides.

Legend of shapes: B galaxies, N training galaxies, M held-out galaxies, K kept ones, D features, P principal components.
"""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hf_galaxy.atomic import whole_file
from hf_galaxy.errors import BadInput
from hf_galaxy.pretrained import SAFETENSORS

FILE = "familiarity.safetensors"
ARRAYS, SAID, WEIGHTS = ("mean", "components", "kept", "rest"), "said", "weights_sha256"  # what is in it
LEVEL = 0.99
# Of 1,280 features these make a file of 0.6 MB. With all components of all 3,460 galaxies of a run no more pictures of other
# kinds were told; with the nearest one instead of the tenth, or without the scaling to length 1, fewer.
COMPONENTS, KEPT, NEIGHBOUR = 64, 1000, 10


@dataclass(frozen=True)
class Familiarity:
    """The training galaxies of a model, in short.

    Attributes:
        mean: (D,) of their features, scaled to length 1.
        components: (P, D) orthonormal.
        kept: (K, P) components of some of them.
        rest: (K,) the squared length of what these have besides.
        neighbour: k.
        threshold: distance from the k-th nearest of them that a share `level` of the held-out galaxies stay below.
        galaxies: N and M, which it was made of.
    """

    mean: np.ndarray
    components: np.ndarray
    kept: np.ndarray
    rest: np.ndarray
    neighbour: int
    threshold: float
    level: float
    galaxies: tuple[int, int]

    @classmethod
    def fit(cls, train: np.ndarray, held_out: np.ndarray, level: float = LEVEL, seed: int = 0) -> "Familiarity":
        """What the features of training galaxies (N, D) and of galaxies that were not learnt from (M, D) say.

        The threshold is the ceil((M + 1) level)-th smallest distance of a held-out galaxy: a further one of their kind lies
        above it with a probability of at most 1 - level, whatever the distances are like (split conformal prediction,
        Vovk et al. 2005). For one draw of the held-out galaxies that share varies, by about sqrt(level (1 - level) / M).

        Raises:
            BadInput: there are too few galaxies.
        """
        rank = math.ceil(round((len(held_out) + 1) * level, 9))
        if rank > len(held_out) or len(train) < NEIGHBOUR:
            least = math.ceil(round(level / (1 - level), 9))
            raise BadInput(
                f"{len(train):,} training and {len(held_out):,} held-out galaxies: to say what {level:.0%} of galaxies are like, at "
                f"least {NEIGHBOUR} and {least} are needed"
            )
        unit = _unit(train)
        mean = unit.mean(axis=0)
        _, axes = np.linalg.eigh(np.cov(unit, rowvar=False))  # from the least variance to the greatest
        components = axes[:, ::-1][:, :COMPONENTS].T
        some = np.random.default_rng(seed).permutation(len(unit))[:KEPT]
        parts = (each.astype(np.float32) for each in (mean, components, *_split(unit[some], mean, components)))
        fitted = cls(*parts, NEIGHBOUR, 1.0, level, (len(train), len(held_out)))
        return dataclasses.replace(fitted, threshold=float(np.sort(fitted.unlikeness(held_out))[rank - 1]))

    def unlikeness(self, features: np.ndarray) -> np.ndarray:
        """(B, D) -> (B,) how unlike the training galaxies each is; 1 is the threshold, and more is stranger."""
        along, rest = _split(_unit(features), self.mean, self.components)
        squared = (along**2).sum(axis=1)[:, None] - 2 * along @ self.kept.T + (self.kept**2).sum(axis=1)
        squared += rest[:, None] + self.rest  # what lies outside the components is taken to be at right angles
        nearest = np.partition(squared, self.neighbour - 1, axis=1)[:, self.neighbour - 1]
        return np.sqrt(nearest.clip(0)) / self.threshold

    def save(self, folder: Path) -> None:
        """Write `folder`/familiarity.safetensors, beside the weights that it belongs to, whole or not at all.

        Raises:
            BadInput: there are no weights, or it cannot be written.
        """
        said = {
            "neighbour": self.neighbour,
            "threshold": self.threshold,
            "level": self.level,
            "galaxies": self.galaxies,
        }
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in ARRAYS}
        try:
            metadata = {SAID: json.dumps(said), WEIGHTS: _digest(folder)}
            with whole_file(folder / FILE) as partial:
                save_file(arrays, partial, metadata)
                partial.chmod((folder / SAFETENSORS).stat().st_mode)  # safetensors lets nobody else read what it writes
        except (OSError, SafetensorError) as error:
            raise BadInput(f"{folder / FILE}: cannot be written ({error})") from error

    @classmethod
    def load(cls, folder: Path) -> "Familiarity":
        """What was saved in a run folder.

        Raises:
            BadInput: nothing was; it cannot be read, or belongs to other weights.
        """
        file = folder / FILE
        if not file.is_file():
            raise BadInput(f"{folder}: has no {FILE}; scripts/measure_familiarity.py makes it")
        try:
            with safe_open(file, "numpy") as opened:
                metadata, arrays = opened.metadata(), [opened.get_tensor(name) for name in ARRAYS]
            said, of_weights = json.loads(metadata[SAID]), metadata[WEIGHTS]
            said["galaxies"] = tuple(said["galaxies"])
            loaded = cls(*arrays, **said)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{file}: cannot be read ({error}); scripts/measure_familiarity.py makes it anew") from error
        if of_weights != _digest(folder):
            raise BadInput(
                f"{file}: belongs to other weights than are here; scripts/measure_familiarity.py makes it anew"
            )
        return loaded


def _unit(features):
    """(B, D) float64, each of length 1."""
    features = np.asarray(features, dtype=np.float64)
    return features / np.linalg.norm(features, axis=1, keepdims=True).clip(np.finfo(np.float32).tiny)


def _split(unit, mean, components):
    """(B, P) along the components, and (B,) the squared length of what there is besides."""
    centred = unit - mean
    along = centred @ components.T
    return along, ((centred**2).sum(axis=1) - (along**2).sum(axis=1)).clip(0)


def _digest(folder):
    """Of the weights in a run folder."""
    with open(folder / SAFETENSORS, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
