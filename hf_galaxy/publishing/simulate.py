"""A mock survey: galaxies of known morphology, their pictures, and the votes of simulated volunteers. Nothing in it is real.

A galaxy has one true morphology for all campaigns; the decision tree of a campaign has its own terms for it. Volunteers
follow that tree. They make more mistakes where the galaxy is small compared with the PSF or faint compared with the noise,
and they choose similar answers more often. So the votes of every galaxy are consistent with the tree
(`DecisionTree.inconsistencies` is empty), and vote fractions are graded like real ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hf_galaxy.data.schema import row_features
from hf_galaxy.decision_tree import Question, load_tree
from hf_galaxy.importing.plan import Batch, LeftOut, Row, batch_of
from hf_galaxy.publishing.mock_pictures import Imaging, Morphology, draw

CARD = Path(__file__).parent / "mock_card.md"  # the text of its dataset card, like dataset_cards/*/card.md
CLASSES = ["smooth-round", "smooth-in-between", "smooth-cigar", "edge-on", "spiral", "disk", "merger", "artifact"]
METADATA = {
    "dataset_name": "string",
    "true_path": "string",
    "magnitude": "float32",
    "half_light_radius_arcsec": "float32",
    "psf_fwhm_arcsec": "float32",
    "pixel_scale_arcsec": "float32",
}


@dataclass(frozen=True)
class Campaign:
    """A mock campaign: its decision tree, its imaging, and its number of volunteers."""

    tree: str
    imaging: Imaging

    def volunteers(self, rng: np.random.Generator) -> int:
        """Number of volunteers for one galaxy."""
        if self.tree == "gz2":
            return max(20, round(rng.normal(44, 6)))
        return max(2, round(rng.normal(40, 4) if rng.random() < 0.25 else rng.normal(5, 1)))


CAMPAIGNS = (
    Campaign("gz2", Imaging(psf_fwhm_arcsec=1.35, sky_noise=(0.06, 0.085, 0.12))),
    Campaign(
        "gz_decals_dr5",
        Imaging(1.1, sky_noise=(0.03, 0.04, 0.06), native_scale_arcsec=0.262, saturation=0.7, sky_level=0.06),
    ),
)
MOCK_TREE = [campaign.tree for campaign in CAMPAIGNS]
_tree = cache(load_tree)  # read once, not for each galaxy

# Question -> {true state: its answer}, where the answer has another name.
ANSWERS = {
    "bar-gz2": {"strong": "yes", "weak": "yes"},
    "bulge-size-gz2": {"large": "obvious", "moderate": "obvious", "small": "just-noticeable", "none": "no"},
    "bulge-shape-gz2": {"rounded": "round", "none": "no-bulge"},
    "how-rounded-gz2": {"cigar-shaped": "cigar"},
}
# Answers in an order in which neighbours are confused; the answers of other questions are equally similar.
SCALES = (
    ("dominant", "large", "obvious", "moderate", "small", "just-noticeable", "no", "none"),
    ("strong", "weak", "no"),
    ("tight", "medium", "loose"),
    ("none", "minor-disturbance", "major-disturbance", "merger"),
    ("1", "2", "3", "4", "more-than-4"),
)
# Difficulty of a question: clarity is raised to this power.
DIFFICULTY = {
    "bar": 1.3,
    "spiral-arm-count": 1.5,
    "spiral-winding": 1.4,
    "bulge-size": 2.0,
    "something-odd": 0.7,
    "merging": 0.8,
}


def draw_morphology(rng: np.random.Generator) -> Morphology:
    """A random galaxy of the local universe: about half are smooth, a few are artifacts, and bright ones are larger."""
    magnitude = max(14.5, 17.7 - rng.exponential(0.9))
    radius = 10 ** (0.52 + 0.13 * (17 - magnitude) + rng.normal(0, 0.12))
    kind = rng.choice(["smooth", "featured", "artifact"], p=[0.46, 0.5, 0.04])
    if kind == "featured":
        radius *= 1.4  # at the same brightness disks are larger
    light: dict[str, Any] = {"magnitude": magnitude, "half_light_radius_arcsec": radius}
    disturbance = rng.choice(["none", "minor-disturbance", "major-disturbance", "merger"], p=[0.84, 0.05, 0.04, 0.07])
    if kind == "artifact":
        return Morphology(kind, **light, artifact=rng.choice(["star", "trail", "lost-band"]))
    if kind == "smooth":
        return Morphology(kind, **light, axis_ratio=rng.uniform(0.22, 1), disturbance=disturbance)
    if rng.random() < 0.28:
        return Morphology(
            kind, **light, edge_on=True, edge_on_bulge=rng.choice(["none", "rounded", "boxy"], p=[0.3, 0.5, 0.2])
        )
    return Morphology(
        kind,
        **light,
        axis_ratio=rng.uniform(0.5, 1),
        bar=rng.choice(["no", "weak", "strong"], p=[0.5, 0.2, 0.3]),
        arms=int(rng.choice([0, 1, 2, 3, 4, 5], p=[0.25, 0.07, 0.4, 0.12, 0.08, 0.08])),
        winding=rng.choice(["tight", "medium", "loose"]),
        bulge_size=rng.choice(["none", "small", "moderate", "large", "dominant"], p=[0.12, 0.3, 0.33, 0.17, 0.08]),
        disturbance=disturbance,
    )


def mock_class(galaxy: Morphology) -> str:
    """One of CLASSES."""
    if galaxy.kind == "artifact" or galaxy.disturbance == "merger":
        return "artifact" if galaxy.kind == "artifact" else "merger"
    if galaxy.kind == "smooth":
        return {"round": "smooth-round", "in-between": "smooth-in-between"}.get(_roundness(galaxy), "smooth-cigar")
    return "edge-on" if galaxy.edge_on else "spiral" if galaxy.arms else "disk"


def clarity(galaxy: Morphology, imaging: Imaging) -> float:
    """How well volunteers recognise the morphology, in (0, 1): 1 for a bright galaxy that is large compared with the PSF."""
    resolution = galaxy.half_light_radius_arcsec / imaging.psf_fwhm_arcsec
    flux = 10 ** (-0.4 * (galaxy.magnitude - 22.5))
    signal_to_noise = flux / (galaxy.half_light_radius_arcsec * imaging.sky_noise[1] * 10)
    return float(1 / (1 + (1.1 / resolution) ** 2) / (1 + (9 / signal_to_noise) ** 1.5))


def vote(galaxy: Morphology, campaign: Campaign, rng: np.random.Generator) -> dict[str, int]:
    """Votes of the campaign's volunteers: column -> number."""
    tree = _tree(campaign.tree)
    counts = np.zeros(len(tree.columns), dtype=int)
    clear = clarity(galaxy, campaign.imaging)
    for q in tree.order:
        question, parents = tree.questions[q], tree.parents[q]
        asked = counts[parents].sum() if parents else campaign.volunteers(rng)
        # Galaxies differ in how typical they are: real vote fractions are seldom near 0 or 1.
        typical = clear * rng.beta(4, 1.5)
        counts[tree.slices[q]] = rng.multinomial(asked, _probabilities(question, galaxy, typical))
    return dict(zip(tree.columns, counts.tolist(), strict=True))


def true_path(galaxy: Morphology, campaign: Campaign) -> str:
    """The columns of the answers of a volunteer who makes no mistake, joined by " > "."""
    tree = _tree(campaign.tree)
    path: list[str] = []
    for q in tree.order:
        question = tree.questions[q]
        if not question.parents or set(path) & set(question.parents):
            path.append(f"{question.name}_{_true_answer(question, galaxy)}")
    return " > ".join(path)


def _roundness(galaxy: Morphology) -> str:
    return "round" if galaxy.axis_ratio > 0.78 else "in-between" if galaxy.axis_ratio > 0.42 else "cigar-shaped"


def _true_answer(question: Question, galaxy: Morphology) -> str:
    """The correct answer to a question, in the terms of its campaign."""
    states = {
        "smooth-or-featured": {"featured": "featured-or-disk"}.get(galaxy.kind, galaxy.kind),
        "disk-edge-on": "yes" if galaxy.edge_on else "no",
        "has-spiral-arms": "yes" if galaxy.arms else "no",
        "bar": galaxy.bar,
        "bulge-size": galaxy.bulge_size,
        "how-rounded": _roundness(galaxy),
        "edge-on-bulge": galaxy.edge_on_bulge,
        "bulge-shape": galaxy.edge_on_bulge,
        "spiral-winding": galaxy.winding,
        "spiral-arm-count": "more-than-4" if galaxy.arms == 5 else str(max(1, galaxy.arms)),
        "something-odd": "no" if galaxy.disturbance == "none" else "yes",
        "merging": galaxy.disturbance,
    }
    state = states[_base_name(question)]
    return ANSWERS.get(question.name, {}).get(state, state)


def _base_name(question: Question) -> str:
    """The name without the campaign."""
    return question.name.rsplit("-", 1)[0]


def _probabilities(question: Question, galaxy: Morphology, clear: float) -> np.ndarray:
    """(answers,) probability of each answer of a volunteer who is asked the question."""
    name, answers = _base_name(question), question.answers
    if name == "how-rounded":
        # Not a mistake but a soft border: blurring makes galaxies rounder.
        apparent = 1 - (1 - galaxy.axis_ratio) * (0.4 + 0.6 * clear)
        logits = -(((apparent - np.array([0.92, 0.6, 0.28])) / 0.23) ** 2)
        return 0.94 * np.exp(logits) / np.exp(logits).sum() + 0.06 / 3
    sure = clear ** DIFFICULTY.get(name, 1.0)
    truth = answers.index(_true_answer(question, galaxy))
    mistakes = np.array([_similarity(answers[truth], answer) for answer in answers])
    if name == "smooth-or-featured":
        # Without its details a galaxy appears smooth; smooth galaxies rarely appear to have details; artifacts are obvious.
        mistakes = np.array(
            {"smooth": [0.72, 0.22, 0.06], "featured-or-disk": [0.85, 0.1, 0.05]}.get(answers[truth], [0.3, 0.1, 0.6])
        )
        sure = max(sure, 0.6) if galaxy.kind == "artifact" else sure
    elif name in ("has-spiral-arms", "bar", "something-odd", "merging"):
        # Invisible features count as absent.
        mistakes = np.array([4.0 if answer in ("no", "none") else 0.5 for answer in answers])
    elif name == "spiral-arm-count":
        mistakes[answers.index("cant-tell")] = 2.0
        mistakes[answers.index("2")] += 0.4
    probabilities = sure * np.eye(len(answers))[truth] + (1 - sure) * mistakes / mistakes.sum()
    return 0.94 * probabilities + 0.06 / len(answers)  # some clicks are random


def _similarity(true: str, answer: str) -> float:
    for scale in SCALES:
        if true in scale and answer in scale:
            return 0.35 ** abs(scale.index(true) - scale.index(answer))
    return 0.5


class MockSurvey:
    """A mock survey of two campaigns: a `plan.Source`. Galaxy i depends on the seed and i alone.

    A row has `id_str`, `image`, votes of both campaigns (0 in the campaign that it is not in), METADATA and `mock_class`.

    Args:
        galaxies: number of galaxies; the first ones are the same for any number.
        seed: of the random generator.
        size: side of the pictures, pixels.
    """

    tree = load_tree(MOCK_TREE)
    features = row_features(tree, {"mock_class": CLASSES}, METADATA)
    values, notes = (), ()
    caption = "mock_class"
    positions = total_votes = split_names = rendering = None

    def __init__(self, galaxies: int, seed: int = 0, size: int = 96) -> None:
        self.seed, self.size = seed, size
        self.campaigns = [self._begin(i)[1].tree for i in range(galaxies)]
        self.ids = [f"mock-{campaign}-{seed}-{i:06d}" for i, campaign in enumerate(self.campaigns)]

    def _begin(self, i: int) -> tuple[Morphology, Campaign, np.random.Generator]:
        rng = np.random.default_rng([self.seed, i])
        return draw_morphology(rng), CAMPAIGNS[rng.integers(len(CAMPAIGNS))], rng

    def batch(self, rows: Sequence[int]) -> Batch:
        """These galaxies with their pictures and votes."""
        return batch_of(self.features, map(self.row, rows))

    def row(self, i: int) -> Row:
        """Galaxy i, with its picture and votes."""
        galaxy, campaign, rng = self._begin(i)
        picture = draw(galaxy, campaign.imaging, self.size, rng)
        return Row(
            {"id_str": self.ids[i], "image": {"bytes": picture, "path": f"{self.ids[i]}.jpg"}}
            | {column: 0 for each in CAMPAIGNS for column in _tree(each.tree).columns}
            | vote(galaxy, campaign, rng)
            | {
                "dataset_name": f"mock_{campaign.tree}",
                "true_path": true_path(galaxy, campaign),
                "magnitude": galaxy.magnitude,
                "half_light_radius_arcsec": galaxy.half_light_radius_arcsec,
                "psf_fwhm_arcsec": campaign.imaging.psf_fwhm_arcsec,
                "pixel_scale_arcsec": campaign.imaging.pixel_scale(galaxy.half_light_radius_arcsec, self.size),
                "mock_class": mock_class(galaxy),
            }
        )

    def left_out(self, unread: Sequence[int]) -> list[LeftOut]:
        """None: all pictures can be read."""
        return []

    def fingerprint(self) -> str:
        """Changes whenever the rows may change."""
        return f"mock survey, {len(self.ids)} galaxies, seed {self.seed}, {self.size} px, columns {list(self.features)}"
