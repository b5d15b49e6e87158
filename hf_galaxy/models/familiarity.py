"""Whether a picture looks like the galaxies that a model has learnt from: to its backbone, and by itself.

Deep nearest neighbours (Sun et al. 2022, huggingface.co/papers/2204.06507): how far the features, scaled to length 1, are from
the k-th nearest of the training galaxies. The same is asked of the picture's looks (`familiarity.looks_of`), since a network finds much
familiar that is none of its galaxies. To be small, only some of these are kept, and of each the leading principal components and
how much there is besides.

Legend of shapes: B galaxies, N training galaxies, M held-out galaxies, K kept ones, D features, L looks, P principal components.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hf_galaxy.errors import BadInput
from hf_galaxy.files import SAFETENSORS, whole_file

FILE = "familiarity.safetensors"
SPACES, ARRAYS, WHITENING = ("features", "looks"), ("mean", "components", "kept", "rest"), "whitening"  # what is in it
SAID, WEIGHTS = "said", "weights_sha256"
LEVEL = 0.99
# Of 1,280 features these make a file of 0.6 MB. With all components of all 3,460 galaxies of a run no more pictures of other
# kinds were told; without the scaling to length 1, and by the looks of the tenth instead of the fifth, fewer.
COMPONENTS, KEPT, NEIGHBOUR = 64, 1000, 5
# Of the variance of a look: to the variance along each direction so much is added, for rounding and JPEG not to decide.
SHRINKAGE = 0.1  # 0.03 and 0.3 tell as much
LEAST_SPREAD = 0.01  # of a look, as where all galaxies are grey


class Seen(NamedTuple):
    """Galaxies, as they are compared.

    Attributes:
        features: (B, D), what the backbone makes of their views.
        looks: (B, L), `familiarity.looks_of` the same views.
    """

    features: np.ndarray
    looks: np.ndarray


@dataclass(frozen=True)
class Neighbours:
    """Points of training galaxies, in short.

    Attributes:
        mean: (D,) of all.
        components: (P, D) orthonormal.
        kept: (K, P) components of some of them.
        rest: (K,) the squared length of what these have besides.
        neighbour: k.
        threshold: the distance from the k-th nearest of them that is called 1.
    """

    mean: np.ndarray
    components: np.ndarray
    kept: np.ndarray
    rest: np.ndarray
    neighbour: int
    threshold: float = 1.0

    @classmethod
    def fit(cls, train: np.ndarray, held_out: np.ndarray, rank: int, seed: int) -> "Neighbours":
        """Of points (N, D), with the `rank`-th smallest distance of others (M, D) as threshold."""
        mean = train.mean(axis=0)
        _, axes = np.linalg.eigh(np.cov(train, rowvar=False))  # from the least variance to the greatest
        components = axes[:, ::-1][:, :COMPONENTS].T
        some = np.random.default_rng(seed).permutation(len(train))[:KEPT]
        parts = [each.astype(np.float32) for each in (mean, components, *_split(train[some], mean, components))]
        ranked = np.sort(cls(*parts, NEIGHBOUR).distances(held_out))
        return cls(*parts, NEIGHBOUR, float(ranked[rank - 1]))

    def distances(self, points: np.ndarray) -> np.ndarray:
        """(B, D) -> (B,) from the k-th nearest; 1 is the threshold."""
        along, rest = _split(points, self.mean, self.components)
        squared = (along**2).sum(axis=1)[:, None] - 2 * along @ self.kept.T + (self.kept**2).sum(axis=1)
        squared += rest[:, None] + self.rest  # what lies outside the components is taken to be at right angles
        nearest = np.partition(squared, self.neighbour - 1, axis=1)[:, self.neighbour - 1]
        return np.sqrt(nearest.clip(0)) / self.threshold


@dataclass(frozen=True)
class Familiarity:
    """The training galaxies of a model, in short.

    Attributes:
        features: of these, scaled to length 1.
        looks: of these, made alike.
        whitening: (L, L) that makes looks alike: uncorrelated, and of about unit variance where they vary at all.
        level: share of galaxies like these that are to pass for familiar.
        galaxies: N and M, which it was made of.
    """

    features: Neighbours
    looks: Neighbours
    whitening: np.ndarray
    level: float
    galaxies: tuple[int, int]

    @classmethod
    def fit(cls, train: Seen, held_out: Seen, level: float = LEVEL, seed: int = 0) -> "Familiarity":
        """What N training galaxies and M that were not learnt from say.

        Features and looks have half of the strangest 1 - level each: the threshold of either is the ceil((M + 1) (1 + level) / 2)-th
        smallest distance of a held-out galaxy. A further one of their kind lies above one of them with a probability of at most
        1 - level, and above that of the looks with at most half of it, whatever the distances are like (split conformal
        prediction, Vovk et al. 2005). For one draw of the held-out galaxies that share varies, by about
        sqrt(level (1 - level) / M).

        Raises:
            BadInput: there are too few galaxies.
        """
        known, others = len(train.features), len(held_out.features)
        each = (1 + level) / 2
        rank = math.ceil(round((others + 1) * each, 9))
        if rank > others or known < NEIGHBOUR:
            least = math.ceil(round(each / (1 - each), 9))
            raise BadInput(
                f"{known:,} training and {others:,} held-out galaxies: to say what {level:.0%} of galaxies are like, at "
                f"least {NEIGHBOUR} and {least} are needed"
            )
        whitening = _whitening(train.looks)
        return cls(
            Neighbours.fit(_unit(train.features), _unit(held_out.features), rank, seed),
            Neighbours.fit(train.looks @ whitening, held_out.looks @ whitening, rank, seed),
            whitening, level, (known, others),
        )  # fmt: skip

    def unlikeness(self, features: np.ndarray, looks: np.ndarray) -> np.ndarray:
        """(B, D) and (B, L) -> (B,) how unlike the training galaxies each is, in that in which it is less like them; more than 1
        is stranger than all but a share 1 - level of galaxies.
        """
        return np.maximum(self.features.distances(_unit(features)), self.looks.distances(looks @ self.whitening))

    def save(self, folder: Path) -> None:
        """Write `folder`/familiarity.safetensors, beside the weights that it belongs to, whole or not at all.

        Raises:
            BadInput: there are no weights, or it cannot be written.
        """
        spaces = {space: getattr(self, space) for space in SPACES}
        said = {"level": self.level, "galaxies": self.galaxies} | {
            space: {"neighbour": each.neighbour, "threshold": each.threshold} for space, each in spaces.items()
        }
        arrays = {f"{space}.{name}": getattr(each, name) for space, each in spaces.items() for name in ARRAYS}
        arrays = {name: np.ascontiguousarray(array) for name, array in (arrays | {WHITENING: self.whitening}).items()}
        try:
            metadata = {SAID: json.dumps(said), WEIGHTS: _digest(folder)}
            with whole_file(folder / FILE) as partial:
                save_file(arrays, partial, metadata)
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
                metadata = opened.metadata()
                arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no dict)
            said, of_weights = json.loads(metadata[SAID]), metadata[WEIGHTS]
            with_looks = WHITENING in arrays
            if with_looks:
                spaces = [
                    Neighbours(*(arrays[f"{space}.{name}"] for name in ARRAYS), **said[space]) for space in SPACES
                ]
                loaded = cls(*spaces, arrays[WHITENING], said["level"], tuple(said["galaxies"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{file}: cannot be read ({error}); scripts/measure_familiarity.py makes it anew") from error
        if not with_looks:
            raise BadInput(
                f"{file}: is of an earlier kind, without what galaxies look like; scripts/measure_familiarity.py makes it anew"
            )
        if of_weights != _digest(folder):
            raise BadInput(
                f"{file}: belongs to other weights than are here; scripts/measure_familiarity.py makes it anew"
            )
        return loaded


def _unit(features):
    """(B, D) float64, each of length 1."""
    features = np.asarray(features, dtype=np.float64)
    return features / np.linalg.norm(features, axis=1, keepdims=True).clip(np.finfo(np.float32).tiny)


def _whitening(looks):
    """(N, L) -> (L, L) float32: distances in looks @ this are Mahalanobis distances, of a correlation matrix + SHRINKAGE."""
    spread = looks.std(axis=0).clip(LEAST_SPREAD)
    variances, axes = np.linalg.eigh(np.cov(looks / spread, rowvar=False))
    return (axes / np.sqrt(variances + SHRINKAGE) / spread[:, None]).astype(np.float32)


def _split(points, mean, components):
    """(B, P) along the components, and (B,) the squared length of what there is besides."""
    centred = points - mean
    along = centred @ components.T
    return along, ((centred**2).sum(axis=1) - (along**2).sum(axis=1)).clip(0)


def _digest(folder):
    """Of the weights in a run folder."""
    with open(folder / SAFETENSORS, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Of the radius of the circle in the view; the corners are in the last ring.
RINGS = (0, 0.15, 0.35, 0.6, 0.85, 1.5)
# Of light in [0, 1], and of its squares: less than this is nothing, for an 8-bit picture and with what JPEG adds.
FAINT, FAINT_SQUARED = 1e-2, 1e-7


def looks_of(views: np.ndarray) -> np.ndarray:
    """(B, 3, S, S) RGB in [0, 1], S at least 10 -> (B, L) float64, which turns by 90 degrees and mirrors do not change.

    In this order:
        the variance of the luminance in each octave of scales, in dex: waves of less than 4 pixels, of 4 to 8, and so on; in the
            last all that are longer, from half to a quarter of the view on. A Hann window keeps the borders out of it;
        the mean luminance in each of five rings around the centre, in dex;
        how much more red, and how much more green, there is than luminance, and the variance of such differences, in dex.
    Of a view of 64 px these are 13. On the Space's models these did not help: the variance within rings, the kurtosis of each
    octave, the share of black and of white pixels; a Laplacian pyramid in place of the octaves told less.
    """
    views = np.asarray(views, dtype=np.float64)
    luminance = views.mean(axis=1)
    excess = views - luminance[:, None]
    return np.concatenate(
        [
            np.log10(_variances(luminance) + FAINT_SQUARED),
            np.log10(_means(luminance) + FAINT),
            excess[:, :2].mean(axis=(2, 3)),
            np.log10((excess**2).mean(axis=(1, 2, 3)) + FAINT_SQUARED)[:, None],
        ],
        axis=1,
    )


def _variances(luminance):
    """(B, S, S) -> (B, octaves)."""
    side = luminance.shape[1]
    window = np.hanning(side + 2)[1:-1]  # without its zeros
    window = np.outer(window, window) / (window**2).mean()
    fluctuations = luminance - luminance.mean(axis=(1, 2), keepdims=True)
    power = np.abs(np.fft.fft2(fluctuations * window)) ** 2 / side**4  # adds up to the mean square (Parseval)
    frequency = np.fft.fftfreq(side)
    frequency = np.hypot(frequency[:, None], frequency).clip(0.5 / side)  # cycles per pixel
    octaves = int(np.log2(side)) - 1
    octave = (np.floor(-np.log2(frequency)) - 1).clip(0, octaves - 1)
    return np.stack([power[:, octave == each].sum(axis=1) for each in range(octaves)], axis=1)


def _means(luminance):
    """(B, S, S) -> (B, rings)."""
    side = luminance.shape[1]
    across = (np.arange(side) + 0.5) * 2 / side - 1
    radius = np.hypot(across[:, None], across)
    ring = np.digitize(radius, RINGS) - 1
    return np.stack([luminance[:, ring == each].mean(axis=1) for each in range(len(RINGS) - 1)], axis=1)
