"""Out-of-distribution detection: whether a picture resembles the galaxies of a model's training set.

Deep nearest neighbours (Sun et al. 2022, huggingface.co/papers/2204.06507): the distance of the features, scaled to length 1, from
the k-th nearest training galaxy. The same distance is computed for statistics of the pixels, called looks (`looks_of`), since the
features of pictures that are not galaxies can be close to those of galaxies. To make the file small, it holds a sample of the
training galaxies, each by its leading principal components and the squared length of the remainder.

Legend of shapes: B galaxies, N training galaxies, M held-out galaxies, K sampled ones, D features, L looks, P principal components.
"""

import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hf_galaxy.errors import BadInput, unwritable
from hf_galaxy.files import SAFETENSORS, whole_file

FILE = "familiarity.safetensors"
SPACES, ARRAYS, WHITENING = (
    ("features", "looks"),
    ("mean", "components", "kept", "rest"),
    "whitening",
)  # names in the file
FACTS, WEIGHTS = "said", "weights_sha256"  # keys of its metadata
LEVEL = 0.99
THRESHOLD = 1.0  # of scores, which are in units of it
# For 1,280 features these give a file of 0.6 MB. All components of all 3,460 galaxies of a run detected no more pictures of other
# kinds; features without scaling to length 1, and looks with the tenth neighbour instead of the fifth, detected fewer.
COMPONENTS, SAMPLE, NEIGHBOUR = 64, 1000, 5
# Added to the variance along each direction, in units of the variance of a look, so that rounding and JPEG do not decide.
SHRINKAGE = 0.1  # 0.03 and 0.3 detect as many
MIN_SPREAD = 0.01  # of a look, such as a colour where all galaxies are grey


class Descriptors(NamedTuple):
    """What galaxies are compared by.

    Attributes:
        features: (B, D) of the backbone.
        looks: (B, L), `looks_of` the same views.
    """

    features: np.ndarray
    looks: np.ndarray


@dataclass(frozen=True)
class Neighbours:
    """A sample of the points of training galaxies, and their distances from other points.

    Attributes:
        mean: (D,) of all training galaxies.
        components: (P, D) orthonormal.
        kept: (K, P) the sample's coordinates along these.
        rest: (K,) the squared length of the sample's remainders.
        neighbour: k.
        threshold: the distance from the k-th nearest galaxy that counts as 1.
    """

    mean: np.ndarray
    components: np.ndarray
    kept: np.ndarray
    rest: np.ndarray
    neighbour: int
    threshold: float = 1.0

    @classmethod
    def fit(cls, train: np.ndarray, held_out: np.ndarray, rank: int, seed: int) -> "Neighbours":
        """From training points (N, D); the threshold is the `rank`-th smallest distance of the held-out points (M, D)."""
        mean = train.mean(axis=0)
        _, axes = np.linalg.eigh(np.cov(train, rowvar=False))  # from the least variance to the greatest
        components = axes[:, ::-1][:, :COMPONENTS].T
        sample = np.random.default_rng(seed).permutation(len(train))[:SAMPLE]
        kept, rest = _split(train[sample], mean, components)
        mean, components, kept, rest = (each.astype(np.float32) for each in (mean, components, kept, rest))
        fitted = cls(mean, components, kept, rest, NEIGHBOUR)
        ranked = np.sort(fitted.distances(held_out))
        return replace(fitted, threshold=float(ranked[rank - 1]))

    def distances(self, points: np.ndarray) -> np.ndarray:
        """(B, D) -> (B,) distances from the k-th nearest galaxy, in units of the threshold."""
        along, rest = _split(points, self.mean, self.components)
        squared = (along**2).sum(axis=1)[:, None] - 2 * along @ self.kept.T + (self.kept**2).sum(axis=1)
        squared += rest[:, None] + self.rest  # remainders are taken to be orthogonal
        nearest = np.partition(squared, self.neighbour - 1, axis=1)[:, self.neighbour - 1]
        return np.sqrt(nearest.clip(0)) / self.threshold


@dataclass(frozen=True)
class Familiarity:
    """The detector of a model: nearest neighbours among its training galaxies.

    Attributes:
        features: neighbours by features, scaled to length 1.
        looks: neighbours by whitened looks.
        whitening: (L, L), makes looks uncorrelated, and of about unit variance unless they are constant.
        level: share of galaxies from the training distribution whose score is to be at most 1.
        galaxies: N and M.
    """

    features: Neighbours
    looks: Neighbours
    whitening: np.ndarray
    level: float
    galaxies: tuple[int, int]

    @classmethod
    def fit(cls, train: Descriptors, held_out: Descriptors, level: float = LEVEL, seed: int = 0) -> "Familiarity":
        """Fit to N training galaxies, and calibrate the thresholds on M held-out galaxies.

        Features and looks have half of the share 1 - level each: each threshold is the ceil((M + 1) (1 + level) / 2)-th smallest
        distance of a held-out galaxy. A further galaxy from the same distribution exceeds one of them with a probability of at
        most 1 - level, and that of the looks with at most half of it, for any distribution of distances (split conformal
        prediction, Vovk et al. 2005). For one draw of the held-out galaxies this share varies by about
        sqrt(level (1 - level) / M).

        Raises:
            BadInput: there are too few galaxies.
        """
        n_train, n_held_out = len(train.features), len(held_out.features)
        quantile = (1 + level) / 2
        rank = math.ceil(round((n_held_out + 1) * quantile, 9))
        if rank > n_held_out or n_train < NEIGHBOUR:
            least = math.ceil(round(quantile / (1 - quantile), 9))
            raise BadInput(
                f"{n_train:,} training and {n_held_out:,} held-out galaxies: a level of {level:.0%} needs at least "
                f"{NEIGHBOUR} and {least}"
            )
        whitening = _whitening(train.looks)
        return cls(
            Neighbours.fit(_unit(train.features), _unit(held_out.features), rank, seed),
            Neighbours.fit(train.looks @ whitening, held_out.looks @ whitening, rank, seed),
            whitening, level, (n_train, n_held_out),
        )  # fmt: skip

    @property
    def digest(self) -> str:
        """SHA-256 of all that scores depend on."""
        spaces = (self.features, self.looks)
        arrays = [getattr(space, name) for space in spaces for name in ARRAYS]
        content = b"".join(np.ascontiguousarray(array).tobytes() for array in (*arrays, self.whitening))
        return hashlib.sha256(content + repr([space.threshold for space in spaces]).encode()).hexdigest()

    def ood_score(self, features: np.ndarray, looks: np.ndarray) -> np.ndarray:
        """(B, D) and (B, L) -> (B,) out-of-distribution scores: the larger of the distances of features and of looks.

        At most a share 1 - level of galaxies from the training distribution have a score above 1.
        """
        return np.maximum(self.features.distances(_unit(features)), self.looks.distances(looks @ self.whitening))

    @classmethod
    def of_run(cls, name: str) -> "Familiarity | None":
        """That of a run, by its folder or Hub id; None: it has none.

        Raises:
            BadInput: as `load`.
        """
        if (folder := Path(name)).is_dir():
            return cls.load(folder) if (folder / FILE).exists() else None
        from transformers.utils import cached_file

        missing = ("gated_repo", "missing_entries", "connection_errors")
        quietly = {f"_raise_exceptions_for_{what}": False for what in missing}
        file = cached_file(name, FILE, **quietly)
        return cls.load(Path(file).parent) if file else None

    def save(self, folder: Path) -> None:
        """Write `folder`/familiarity.safetensors, beside the weights that it belongs to.

        Raises:
            BadInput: there are no weights, or it cannot be written.
        """
        spaces = {space: getattr(self, space) for space in SPACES}
        facts: dict[str, object] = {"level": self.level, "galaxies": self.galaxies} | {
            space: {"neighbour": each.neighbour, "threshold": each.threshold} for space, each in spaces.items()
        }
        arrays = {f"{space}.{name}": getattr(each, name) for space, each in spaces.items() for name in ARRAYS}
        arrays = {name: np.ascontiguousarray(array) for name, array in (arrays | {WHITENING: self.whitening}).items()}
        try:
            metadata = {FACTS: json.dumps(facts), WEIGHTS: _digest(folder)}
            with whole_file(folder / FILE) as partial:
                save_file(arrays, partial, metadata)
        except (OSError, SafetensorError) as error:
            raise unwritable(folder / FILE, error) from error

    @classmethod
    def load(cls, folder: Path) -> "Familiarity":
        """Load the file in a run folder.

        Raises:
            BadInput: it is missing, cannot be read, or belongs to other weights.
        """
        file = folder / FILE
        if not file.is_file():
            raise BadInput(f"{folder}: has no {FILE}; hf-galaxy familiarity writes it")
        try:
            with safe_open(file, "numpy") as opened:
                metadata = opened.metadata()
                arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no dict)
            facts, of_weights = json.loads(metadata[FACTS]), metadata[WEIGHTS]
            with_looks = WHITENING in arrays
            if with_looks:
                features, looks = (
                    Neighbours(*(arrays[f"{space}.{name}"] for name in ARRAYS), **facts[space]) for space in SPACES
                )
                loaded = cls(features, looks, arrays[WHITENING], facts["level"], tuple(facts["galaxies"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{file}: cannot be read ({error}); write it again with hf-galaxy familiarity") from error
        if not with_looks:
            raise BadInput(f"{file}: has an earlier format, without looks; write it again with hf-galaxy familiarity")
        if of_weights != _digest(folder):
            raise BadInput(
                f"{file}: belongs to other weights than those here; write it again with hf-galaxy familiarity"
            )
        return loaded


def _unit(features: np.ndarray) -> np.ndarray:
    """(B, D) float64, each of length 1."""
    features = np.asarray(features, dtype=np.float64)
    return features / np.linalg.norm(features, axis=1, keepdims=True).clip(np.finfo(np.float32).tiny)


def _whitening(looks: np.ndarray) -> np.ndarray:
    """(N, L) -> (L, L) float32: distances in looks @ this are Mahalanobis distances, of a correlation matrix + SHRINKAGE."""
    spread = looks.std(axis=0).clip(MIN_SPREAD)
    variances, axes = np.linalg.eigh(np.cov(looks / spread, rowvar=False))
    return (axes / np.sqrt(variances + SHRINKAGE) / spread[:, None]).astype(np.float32)


def _split(points: np.ndarray, mean: np.ndarray, components: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B, P) coordinates along the components, and (B,) the squared length of the remainder."""
    centred = points - mean
    along = centred @ components.T
    return along, ((centred**2).sum(axis=1) - (along**2).sum(axis=1)).clip(0)


def _digest(folder: Path) -> str:
    """SHA-256 of the weights in a run folder."""
    with open(folder / SAFETENSORS, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Edges, in radii of the circle in the view; the corners are in the last ring.
RINGS = (0, 0.15, 0.35, 0.6, 0.85, 1.5)
# Luminance in [0, 1], and its square, below which an 8-bit picture and JPEG have only noise.
FAINT, FAINT_SQUARED = 1e-2, 1e-7
BATCH = 16  # views that fit into the cache of a core: all of 128 at once take five times as long


def looks_of(views: np.ndarray) -> np.ndarray:
    """(B, 3, S, S) RGB in [0, 1], S at least 10 -> (B, L) float64, invariant to rotation by 90 degrees and reflection.

    In this order:
        the variance of the luminance in each octave of scales, in dex: waves of less than 4 pixels, of 4 to 8, and so on; the
            last octave includes all longer waves. A Hann window excludes the borders;
        the mean luminance in each of five rings around the centre, in dex;
        the mean excess of red, and of green, over the luminance, and the variance of all such excesses, in dex.
    For a view of 64 px these are 13. On the Space's models these did not help: the variance within rings, the kurtosis of each
    octave, the share of black and of white pixels; a Laplacian pyramid instead of octaves detected less.
    """
    if len(views) > BATCH:
        return np.concatenate([looks_of(views[first : first + BATCH]) for first in range(0, len(views), BATCH)])
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


def _variances(luminance: np.ndarray) -> np.ndarray:
    """(B, S, S) -> (B, octaves)."""
    side = luminance.shape[1]
    window = np.hanning(side + 2)[1:-1]  # without its zeros
    window = np.outer(window, window) / (window**2).mean()
    fluctuations = luminance - luminance.mean(axis=(1, 2), keepdims=True)
    power = np.abs(np.fft.fft2(fluctuations * window)) ** 2 / side**4  # its sum is the mean square (Parseval)
    frequency = np.fft.fftfreq(side)
    frequency = np.hypot(frequency[:, None], frequency).clip(0.5 / side)  # cycles per pixel
    octaves = int(np.log2(side)) - 1
    octave = (np.floor(-np.log2(frequency)) - 1).clip(0, octaves - 1)
    return np.stack([power[:, octave == each].sum(axis=1) for each in range(octaves)], axis=1)


def _means(luminance: np.ndarray) -> np.ndarray:
    """(B, S, S) -> (B, rings)."""
    side = luminance.shape[1]
    across = (np.arange(side) + 0.5) * 2 / side - 1
    radius = np.hypot(across[:, None], across)
    ring = np.digitize(radius, RINGS) - 1
    return np.stack([luminance[:, ring == each].mean(axis=1) for each in range(len(RINGS) - 1)], axis=1)
