"""All that a training run is made of: the options of scripts/pretrain.py and scripts/finetune.py, as they are in run.json."""

import importlib.util
import json
import math
import re
import typing
from dataclasses import MISSING, dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.constructors import PrimitiveConstructorSpec

from hf_galaxy.errors import BadInput
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.training.recipe import Recipe

if TYPE_CHECKING:
    from hf_galaxy.training.augmentation import Augmentation


@dataclass(frozen=True)
class TrainableParts:
    """What is trained; the head always is.

    Attributes:
        kind: the whole model; the head alone; the last layer groups (`backbones.layer_groups`); or low-rank adapters.
        number: of layer groups, or the rank.
    """

    kind: Literal["all", "head", "last", "lora"]
    number: int = 0

    @classmethod
    def of(cls, text: str) -> "TrainableParts":
        """Read "all", "head", "last:N" or "lora:RANK".

        Raises:
            BadInput: it is none of these, or peft, which makes adapters, is not installed.
        """
        if not (said := re.fullmatch(r"(all|head)|(last|lora):([1-9]\d*)", text)):
            raise BadInput(f"--train {text}: choose all, head, last:N (layer groups) or lora:RANK (such as lora:8)")
        trained = cls(said[1] or said[2], int(said[3] or 0))
        if trained.kind == "lora" and importlib.util.find_spec("peft") is None:
            raise BadInput(f"--train {text}: needs peft; pip install 'hf_galaxy[lora]'")
        return trained


def check_weights(weights: list[float], count: int) -> None:
    """Refuse weights that are not one above 0 for each of `count` datasets.

    Raises:
        BadInput: names them.
    """
    if len(weights) != count or not all(0 < weight < math.inf for weight in weights):
        raise BadInput(f"--weights {' '.join(map(str, weights))}: one number above 0 for each of {count} datasets")


def _share_of(text):
    try:
        return float(Fraction(text))
    except ZeroDivisionError as error:
        raise ValueError(f"{text} is no number") from error


# A share that may be given as a fraction, such as 1/64.
FractionOption = Annotated[
    float,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="SHARE",
        instance_from_str=lambda words: _share_of(words[0]),
        is_instance=lambda value: isinstance(value, float),
        str_from_instance=lambda value: [str(value)],
    ),
]


@dataclass(frozen=True, kw_only=True)
class Settings(Recipe):
    """What a run is made of, besides its recipe."""

    dataset: tuple[str, ...]
    """Folders made by publish_dataset.py, or Hub ids."""
    out: Path
    """The run folder to make. An unfinished run in it goes on, if its settings are the same."""
    config: str | None = None
    """Configuration of the dataset, if it has several."""
    streaming: bool = False
    """Read the dataset's Parquet files as far as they are needed, where they are, instead of copying all to a cache first."""
    weights: tuple[float, ...] | None = None
    """Of several datasets: how often galaxies of each are seen, relative to each other; by default as often as there are galaxies."""
    balance: float = 0.0
    """How far classes (for votes: sets of campaigns that a galaxy was in; not for values) are seen equally often, within each dataset: 0, as they are, to 1, all equally."""
    fold: int | None = None
    """Cross-validation, for small datasets: pool the published splits and divide them anew by a hash of id_str, of which the fifth of this number, 1 to 5, is the test split. The five test splits have no galaxy in common, but where one galaxy stands in rows of several names, publishing put them into one split, and folds do not know of that."""
    subset: FractionOption = 1.0
    """Learn from this share of the training galaxies, such as 1/8: chosen by hash, of each class or campaign (or set of known values) alike; 1/8 is inside 1/4."""
    leave_out: Path | None = None
    """CSV file with a column id_str: galaxies to neither learn from nor validate with, such as those that another task is tested on (scripts/find_overlap.py finds them). Tests keep them."""
    task: Literal["votes", "classes", "values"] = "votes"
    """Predict the volunteers' votes, a class label, or numbers such as redshifts (regression)."""
    label: str | None = None
    """The label column, for --task classes; COLUMN=CLASS learns to tell this class from the rest."""
    label_smoothing: float = 0.0
    """For classes: the share of each label that training gives to all classes alike; figures are measured without."""
    class_weights: Literal["balanced"] | tuple[float, ...] | None = None
    """For classes: how much a galaxy of each counts in training, a number for each class in order, or balanced: as 1 to their numbers, 1 on average; figures are measured without."""
    values: tuple[str, ...] | None = None
    """The columns of numbers, one or several, for --task values; galaxies may lack some."""
    unit_interval: bool = False
    """For values that are fractions: all are in [0, 1], and so is what the model answers."""
    tree: tuple[str, ...] | None = None
    """Campaigns whose questions are learnt; by default all of which the datasets have the columns."""
    backbone: str | None = None
    """A timm architecture (convnext_atto), or transformers:FOLDER_OR_HUB_ID."""
    start: str | None = None
    """Weights to start from: a run folder or its Hub id, a .safetensors or .pth file of timm weights, a timm model name with its tag (convnext_atto.d2_in1k), hf_hub:ORG/NAME, or transformers:FOLDER_OR_HUB_ID."""
    train: str = "all"
    """all; head: the backbone stays as it is, and sees each galaxy once, without random views; last:N: the last N layer groups of the backbone, and the head; lora:RANK: low-rank adapters, merged into the weights at the end, and the head."""
    keep_head: bool = False
    """Start also the head from the run that --start names, where both have the same answers or classes."""
    image_size: int | None = None
    """Side of what the backbone sees, in pixels; by default that of the run it starts from, else 224."""
    crop: float | None = None
    """Share of the picture's side that it sees, from the centre; by default that of the run it starts from, else 1."""
    rotate: bool = True
    """Turn pictures at random; not for labels that know where up is."""
    flip: bool = True
    """Mirror pictures at random; not for labels that know a spiral's handedness."""
    zoom: tuple[float, float] = (0.9, 1.1)
    """Enlarge pictures at random, by factors between these two; milder than Zoobot's, which change how large a galaxy looks."""
    shift: float = 0.05
    """Move pictures at random, by up to this share of the view."""
    likelihood: Literal["dirichlet_multinomial", "multinomial"] = "dirichlet_multinomial"
    """Of the votes."""
    head_dropout: float = 0.2
    """Share of the features dropped before the head, in training."""
    drop_path: float = 0.0
    """Stochastic depth rate of a timm backbone, in training."""
    min_votes: int = 20
    """Vote fractions count in RMSE, MAE and accuracy where a question has at least so many votes."""
    precision: Literal["no", "bf16", "fp16"] | None = None
    """Mixed precision, by default as `accelerate launch` or `accelerate config` says; the likelihood is float32 always."""
    compile: bool = False
    """Compile the backbone with torch.compile: some minutes at the start, then faster steps, above all on GPUs."""
    gradient_checkpointing: bool = False
    """Keep less for the backward pass and compute it again there: about a third slower, in much less memory; batch norms see each batch twice."""
    exact: bool = True
    """Use only algorithms that give the same result each time; --no-exact lets a GPU take faster ones, and TF32 products."""
    device_batch: int | None = None
    """Galaxies that fit into a process at once; a larger batch is accumulated in parts of at most so many."""
    branch_of: Path | None = None
    """A run folder with the same settings but for its length, and checkpoints kept by --keep-at: what both have in common is not trained again."""
    keep_at: tuple[float, ...] = ()
    """Keep the checkpoints after so many epochs for runs that branch off there (with --schedule wsd, before the cool-down)."""
    keep_checkpoints: int = 2
    """So many of the newest checkpoints are kept while the run is not finished."""
    checkpoint_minutes: float = 10
    """Save what is needed to go on at least so often; after each epoch and on SIGTERM always."""
    tracker: str | None = None
    """Follow the run with one of Accelerate's trackers, such as trackio, or tensorboard, which writes to the folder logs beside --out."""
    estimate: bool = False
    """Only try out some steps, and say how long the run would take and what space it would need."""
    workers: int | None = None
    """Processes that decode pictures, for each training process; by default half as many as cores, 8 at most; none on a CPU of up to 3 cores, which they would take from it."""
    cpu: bool = False
    """Train on the CPU even if there is a GPU."""

    @property
    def augmentation(self) -> "Augmentation":
        """What is done to pictures at random."""
        from hf_galaxy.training.augmentation import Augmentation

        return Augmentation(self.rotate, self.flip, self.zoom, self.shift)

    def check(self) -> None:
        """As in `Recipe`, and of what is added here."""
        from hf_galaxy.data.splits import FOLDS
        from hf_galaxy.training.optimizers import check_optimizer

        super().check()
        check_optimizer(self.optimizer)
        self.augmentation.check()
        self._check_training()
        if self.weights is not None:
            check_weights(list(self.weights), len(self.dataset))
        learns = {"votes": "--tree", "classes": "--label", "values": "--values"}
        of_task = {"tree": "votes", "label": "classes", "label_smoothing": "classes", "class_weights": "classes",
                   "values": "values", "unit_interval": "values"}  # fmt: skip
        for name, task in of_task.items():
            if getattr(self, name) and task != self.task:
                raise BadInput(
                    f"--{name.replace('_', '-')}: is for --task {task}; {self.task} are learnt from {learns[self.task]}"
                )
        if not 0 <= self.label_smoothing < 1:
            raise BadInput(f"--label-smoothing {self.label_smoothing}: is a share, in [0, 1)")
        if self.balance and self.class_weights == "balanced":
            raise BadInput("--class-weights balanced and --balance: do the same, together too much of it; choose one")
        if self.balance and self.task == "values":
            raise BadInput("--balance: is of classes, or of campaigns; values have nothing to be balanced by")
        if self.values and len(set(self.values)) < len(self.values):
            raise BadInput(f"--values {' '.join(self.values)}: names a column twice")
        if self.config is not None and len(self.dataset) > 1:
            raise BadInput("--config: is of one dataset; several are read in their default configuration")
        if self.fold is not None and not 1 <= self.fold <= FOLDS:
            raise BadInput(f"--fold {self.fold}: is the number of a fold, 1 to {FOLDS}")
        if not 0 < self.subset <= 1:
            raise BadInput(f"--subset {self.subset}: is a share of the training galaxies, in (0, 1]")
        if not 0 <= self.balance <= 1:
            raise BadInput(
                f"--balance {self.balance}: is in [0, 1]; 0 leaves classes as they are, 1 makes all equally frequent"
            )
        if self.balance and self.streaming:
            raise BadInput(
                "--balance: picks single galaxies from everywhere, which a stream cannot give; leave out --streaming"
            )
        if self.image_size is not None and self.image_size < 1:
            raise BadInput(f"--image-size {self.image_size}: must be more than 0")
        if not (0 <= self.head_dropout < 1 and 0 <= self.drop_path < 1):
            raise BadInput("--head-dropout and --drop-path are shares, in [0, 1)")
        for name in ("min_votes", "keep_checkpoints", "device_batch"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise BadInput(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")
        if (self.workers or 0) < 0 or self.checkpoint_minutes < 0:
            raise BadInput("--workers and --checkpoint-minutes must not be negative")
        if any(not 0 < epochs <= self.epochs for epochs in self.keep_at):
            raise BadInput(f"--keep-at: is in epochs, more than 0 and at most {self.epochs:g}")

    def _check_training(self):
        kind = TrainableParts.of(self.train).kind
        if self.start is None and (kind != "all" or self.keep_head):
            option = "--keep-head" if self.keep_head else f"--train {self.train}"
            raise BadInput(f"{option}: is for pretrained weights; say with --start which")
        if kind in ("head", "lora") and self.layer_decay != 1:
            raise BadInput(
                f"--layer-decay {self.layer_decay}: is for layers that are trained themselves; --train {self.train} trains "
                f"{'none of them' if kind == 'head' else 'adapters, all alike'}"
            )
        if kind == "head" and self.drop_path:
            raise BadInput(f"--drop-path {self.drop_path}: --train head leaves the backbone in evaluation mode")


# A run may go on with others of these, and branch off from one with others: they do not change what it computes.
NOT_PART_OF_RESULT = {
    "out", "workers", "cpu", "device_batch", "keep_at", "keep_checkpoints", "checkpoint_minutes", "tracker", "estimate",
    "branch_of", "recipe",
}  # fmt: skip


def as_recorded(recorded: dict) -> dict:
    """The settings that a record holds, and of options that were not there yet, when it was made, the defaults.

    A run of that time computed what they do now by default.
    """
    later = {each.name: each.default for each in fields(Settings) if each.default is not MISSING}
    return json.loads(json.dumps(later, default=str)) | recorded


def settings_of(record: RunRecord) -> Settings:
    """The settings that a record holds, of the types they had: JSON has neither tuples nor paths.

    Options that were not there yet, when it was made, have their defaults; those that are no more are left out.
    """
    types = {name: {kind, *typing.get_args(kind)} for name, kind in typing.get_type_hints(Settings).items()}
    values = {name: value for name, value in record.settings.items() if name in types}
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(value)
        elif isinstance(value, str) and Path in types[name]:
            values[name] = Path(value)
    return Settings(**values)
