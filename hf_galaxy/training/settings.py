"""The settings of a training run: the options of hf-galaxy pretrain and hf-galaxy finetune, as run.json holds them."""

import importlib.util
import itertools
import json
import math
import re
import typing
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from tyro.constructors import PrimitiveConstructorSpec

from hf_galaxy.command_line import OutputPath
from hf_galaxy.cores import MOST_PROCESSES
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.reading import VotesReading
from hf_galaxy.plain_values import share
from hf_galaxy.reports.run_record import RunRecord, reading
from hf_galaxy.targets import TARGETS, target_class, task_of
from hf_galaxy.training.recipe import Ranges, Recipe, check_ranges, with_recipe

if TYPE_CHECKING:
    from hf_galaxy.training.augmentation import Augmentation


@dataclass(frozen=True)
class TrainableParts:
    """The trainable parts of a model; the head always is one.

    Attributes:
        kind: the whole model; the head alone; the last layer groups (`backbones.layer_groups`); or low-rank adapters.
        number: of layer groups, or the rank.
    """

    kind: Literal["all", "head", "last", "lora"]
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> "TrainableParts":
        """Parse "all", "head", "last:N" or "lora:RANK".

        Raises:
            BadInput: it is none of these, or peft, which makes adapters, is not installed.
        """
        if not (match := re.fullmatch(r"(all|head)|(last|lora):([1-9]\d*)", text)):
            raise BadInput(f"--train {text}: choose all, head, last:N (layer groups) or lora:RANK (such as lora:8)")
        kind: Any = match[1] or match[2]
        trained = cls(kind, int(match[3] or 0))
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


# A number that may be written as a fraction, such as 1/64.
FractionOption = Annotated[
    float,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="SHARE",
        instance_from_str=lambda words: share(words[0]),
        is_instance=lambda value: isinstance(value, float),
        str_from_instance=lambda value: [str(value)],
    ),
]


if TYPE_CHECKING:
    TaskName: TypeAlias = str
else:
    TaskName = Literal[tuple(TARGETS)]  # for the command line

RANGES: Ranges = (
    (("label_smoothing", "head_dropout", "drop_path"), lambda value: 0 <= value < 1, "is a share, in [0, 1)"),
    (("subset",), lambda value: 0 < value <= 1, "is a share of the training galaxies, in (0, 1]"),
    (("balance",), lambda value: 0 <= value <= 1, "is in [0, 1]; 0 leaves classes as they are, 1 makes all equally frequent"),
    (("image_size",), lambda value: value > 0, "must be more than 0"),
    (("image_size",), lambda value: value <= 8192, "is more than 8,192 pixels"),
    (("min_votes", "keep_checkpoints", "device_batch"), lambda value: value >= 1, "must be at least 1"),
    (("checkpoint_minutes",), lambda value: value >= 0, "must not be negative"),
    (("workers",), lambda value: 0 <= value <= MOST_PROCESSES, f"is a number of processes, from 0 to {MOST_PROCESSES}"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings(VotesReading, Recipe):
    """Everything that defines a run, besides its recipe."""

    dataset: tuple[str, ...]
    """Datasets to train on: folders made by hf-galaxy publish, folders of pictures with a subfolder for each class, tables of galaxies (survey.csv, with --images), or Hub ids."""
    out: OutputPath
    """Run folder to create. If it holds an unfinished run with the same settings, training resumes from its last checkpoint."""
    streaming: bool = False
    """Stream the dataset's Parquet files instead of copying all of them to a cache first."""
    weights: tuple[float, ...] | None = None
    """With several datasets: relative sampling weight of each; by default its number of training galaxies."""
    balance: float = 0.0
    """Class-balanced sampling within each dataset, from 0 (as in the dataset) to 1 (all classes equally often). For votes, the classes are sets of campaigns; for labels, combinations of labels; not for values."""
    fold: int | None = None
    """Cross-validation, for small datasets: fold number, 1 to 5. All published splits are pooled and divided by a hash of id_str; each galaxy is in the test set of one fold. Rows of one galaxy under several names may be in different folds."""
    subset: FractionOption = 1.0
    """Fraction of the training set to train on, such as 1/8. Chosen by a hash and stratified by class, labels, campaign or available values; smaller subsets are part of larger ones."""
    leave_out: Path | None = None
    """CSV file with a column id_str: galaxies to exclude from training and validation, such as the test set of another task (hf-galaxy overlap writes such files). The test set keeps them."""
    shuffle_targets: bool = False
    """A control: each training and validation galaxy has the target of another galaxy of its dataset, drawn by the seed, so that pictures, length and head are those of a training, and nothing about galaxies can be learnt. The test galaxies keep theirs."""
    task: TaskName = "votes"
    """Target: votes of volunteers; a class label (classification); numbers such as redshifts (values: regression); or several yes/no labels at once (labels: multi-label classification). By default the one whose option names its columns: --label, --values or --labels; else votes."""
    label: str | None = None
    """Label column, for classes: a ClassLabel, texts, whole numbers (0 and 1, or others) or bools; galaxies without a label (null, NaN, -1, blank) are left out. COLUMN=CLASS is binary classification: this class against all others."""
    label_smoothing: float = 0.0
    """For classes: label smoothing of the training loss; metrics are without."""
    class_weights: Literal["balanced"] | tuple[float, ...] | None = None
    """For classes: weight of each class in the training loss, in the order of the classes; balanced: inversely proportional to class frequencies. Metrics are without."""
    values: tuple[str, ...] | None = None
    """Columns of numbers, one or several, for values (regression); missing values (null, NaN) are masked."""
    unit_interval: bool = False
    """For values that are fractions: all are in [0, 1], and predictions are, too."""
    labels: tuple[str, ...] | None = None
    """Yes/no columns, one or several, for labels: bool, 0 and 1, or a ClassLabel of two classes; missing labels (null, NaN or -1) are masked."""
    backbone: str | None = None
    """Backbone: a timm architecture (such as convnext_atto), or transformers:FOLDER_OR_HUB_ID."""
    start: str | None = None
    """Pretrained weights: a run folder or its Hub id, a .safetensors or .pth file of timm weights, a timm model name with its tag (convnext_atto.d2_in1k), hf_hub:ORG/NAME, or transformers:FOLDER_OR_HUB_ID."""
    train: str = "all"
    """Trainable parts, beside the head: all; head: no other (the features of the frozen backbone are computed once, without augmentation); last:N: the last N layer groups of the backbone; lora:RANK: low-rank adapters, which are merged into the weights at the end."""
    keep_head: bool = False
    """Initialize the head from the run in --start, for the answers, classes, labels or values that both have."""
    image_size: int | None = None
    """Side of the backbone's input in pixels; by default that of the run in --start, else 224."""
    crop: float | None = None
    """Center crop: fraction of the picture's side; by default that of the run in --start, else 1."""
    measure_stretch: bool = False
    """With --bands and a run of these bands in --start: measure sky, noise and saturation anew, on these galaxies, instead of keeping those that the weights were trained with. Without such a run they are always measured."""
    rotate: bool = True
    """Augmentation: random rotations; switch off if the target depends on orientation."""
    flip: bool = True
    """Augmentation: random reflections; switch off if the target depends on the handedness of spirals."""
    zoom: tuple[float, float] = (0.9, 1.1)
    """Augmentation: minimum and maximum of random magnifications; milder than Zoobot's, which change the apparent size of a galaxy."""
    shift: float = 0.05
    """Augmentation: maximum of random shifts, as a fraction of the view."""
    shear: float = 0.0
    """Augmentation: maximum of random shears, in degrees, in any direction; 0: none. A shear changes how round a galaxy looks: by 20 degrees, a circle becomes an ellipse with an axis ratio of 0.70."""
    erase: float = 0.0
    """Augmentation: share of the views of which a random rectangle, 0.02 to 0.2 of its area, is replaced by sky (random erasing)."""
    blur: float = 0.0
    """Augmentation, for fluxes (--bands): maximum FWHM in arcsec of a random Gaussian with which a view is convolved, in addition to the seeing that it has; needs files that know their arcsec per pixel."""
    noise: float = 0.0
    """Augmentation, for fluxes (--bands): maximum standard deviation of random Gaussian noise in each pixel of the view, in units of the noise of the sky in each band, as it was measured on the pictures of the dataset."""
    mixup: float = 0.0
    """For classes and labels: mixup, alpha of the Beta distribution of the share of one galaxy in a mixture of two (0.2 in the paper); 0: none. With --cutmix each pair is mixed in one of both ways."""
    cutmix: float = 0.0
    """For classes and labels: cutmix, alpha of the Beta distribution of the share of a view that stays, while a square of it is that of another galaxy (1 in the paper); 0: none."""
    likelihood: Literal["dirichlet_multinomial", "multinomial"] = "dirichlet_multinomial"
    """For votes: likelihood used as training loss."""
    head_activation: Literal["mixture", "softplus", "sigmoid"] = "mixture"
    """For votes: how outputs x of the head become concentrations: softplus(x) + 0.01, of two Dirichlet distributions for each question that are mixed, or of one; or 1 + 100 sigmoid(x) of one, as in Zoobot."""
    calibrate: bool = True
    """For votes, classes and values: after training, fit to the validation galaxies how certain predictions may be (a scale and shifts of the log-concentrations of each question, a temperature, or standard deviations of values), and keep it in the model if cross-validation says that it helps; it takes 50 validation galaxies, of values 20."""
    head_dropout: float = 0.2
    """Dropout rate of the features before the head."""
    drop_path: float = 0.0
    """Stochastic depth rate of a timm backbone."""
    min_votes: int = 20
    """For votes: minimum number of votes for a question to be included in RMSE, MAE and accuracy."""
    precision: Literal["no", "bf16", "fp16"] | None = None
    """Mixed precision; by default that of `accelerate launch` or `accelerate config`. The likelihood is always computed in float32."""
    compile: bool = False
    """Compile the backbone with torch.compile: takes minutes at the start, then steps are faster, above all on GPUs."""
    gradient_checkpointing: bool = False
    """Gradient checkpointing: much less memory, about a third slower; batch normalization sees each batch twice."""
    exact: bool = True
    """Use deterministic algorithms only; --no-exact allows faster ones on a GPU, and TF32."""
    device_batch: int | None = None
    """Maximum number of galaxies per process at once; larger batches use gradient accumulation."""
    branch_of: Path | None = None
    """Run folder with the same settings except for its length: training starts from its last checkpoint of --keep-at that both have in common."""
    keep_at: tuple[float, ...] = ()
    """Epochs after which checkpoints are kept for runs with --branch-of (with the schedule wsd, before the cool-down)."""
    keep_checkpoints: int = 2
    """Number of the newest checkpoints to keep until the run is finished."""
    checkpoint_minutes: float = 10
    """Maximum minutes between checkpoints; there is also one after each epoch and on SIGTERM."""
    tracker: str | None = None
    """Experiment tracker of Accelerate, such as trackio, or tensorboard, which writes to the folder logs beside --out."""
    estimate: bool = False
    """Run a few steps only, and print how much time, memory and disk space the run would need."""
    workers: int | None = None
    """Data loading processes per training process; by default half the number of cores, at most 8, and 0 on a CPU with up to 3 cores."""
    cpu: bool = False
    """Train on the CPU even if there is a GPU."""

    @property
    def augmentation(self) -> "Augmentation":
        """Random changes of training pictures."""
        from hf_galaxy.training.augmentation import Augmentation

        return Augmentation(**{each.name: getattr(self, each.name) for each in fields(Augmentation)})

    def check(self) -> None:
        """As in `Recipe`, and for the settings that are added here."""
        from hf_galaxy.data.splits import FOLDS
        from hf_galaxy.training.optimizers import check_optimizer

        super().check()
        folds = (("fold",), lambda value: 1 <= value <= FOLDS, f"is the number of a fold, 1 to {FOLDS}")
        check_ranges(self, [*RANGES, folds])
        check_optimizer(self.optimizer)
        self._check_augmentation()
        if self.weights is not None:
            check_weights(list(self.weights), len(self.dataset))
        self._check_target()
        kind, balanced = TrainableParts.parse(self.train).kind, self.balance > 0
        pretrained = "--keep-head" if self.keep_head else f"--train {self.train}"
        frozen = "none of them" if kind == "head" else "adapters, all alike"
        rules = [
            (self.measure_stretch and not self.bands, "--measure-stretch: is for fluxes; name their bands with --bands"),
            (self.start is None and (kind != "all" or self.keep_head), f"{pretrained}: is for pretrained weights; name them with --start"),
            (
                kind in ("head", "lora") and self.layer_decay != 1,
                f"--layer-decay {self.layer_decay}: is for layers that are trained themselves; --train {self.train} trains {frozen}",
            ),
            (kind == "head" and self.drop_path > 0, f"--drop-path {self.drop_path}: --train head leaves the backbone in evaluation mode"),
            (
                balanced and self.class_weights == "balanced",
                "--class-weights balanced and --balance: both balance the classes, together too much; choose one",
            ),
            (self.shuffle_targets and self.streaming, "--shuffle-targets: needs random access to the galaxies; leave out --streaming"),
            (self.shuffle_targets and kind == "head", "--shuffle-targets: a backbone that stays as it is learns nothing from a target, shuffled or not; leave out --train head"),
            (balanced and self.streaming, "--balance: needs random access to the galaxies; leave out --streaming"),
            (self.config is not None and len(self.dataset) > 1, "--dataset-config: is for one dataset; several are read in their default configuration"),
            (self.until_converged and bool(self.keep_at or self.branch_of), "--until-converged: tries lengths of its own; leave out --keep-at and --branch-of"),
            (
                any(not 0 < epochs <= self.epochs for epochs in self.keep_at),
                f"--keep-at: is in epochs, more than 0 and at most {self.epochs:g}",
            ),
        ]  # fmt: skip
        for broken, message in rules:
            if broken:
                raise BadInput(message)

    def _check_augmentation(self) -> None:
        """Refuse ranges that are none, and changes that the pictures or the trainable parts do not allow."""
        self.augmentation.check()
        frozen = TrainableParts.parse(self.train).kind == "head"
        for name in ("shear", "erase", "blur", "noise", "mixup", "cutmix"):
            value = getattr(self, name)
            if value and frozen:
                raise BadInput(
                    f"--{name} {value}: --train head learns from features that are computed once, without augmentation; leave it out"
                )
            if value and name in ("blur", "noise") and not self.bands:
                raise BadInput(f"--{name} {value}: is for fluxes, not for 8-bit pictures; name bands with --bands")

    def _check_target(self) -> None:
        """Refuse options of another target, and those that this one cannot work with."""
        options = {task: target_class(task).options + target_class(task).loss_options for task in TARGETS}
        for name in dict.fromkeys(itertools.chain(*options.values())):
            if getattr(self, name) and name not in options[self.task]:
                tasks = " and ".join(task for task, names in options.items() if name in names)
                raise BadInput(
                    f"--{name.replace('_', '-')}: is for --task {tasks}; --task {self.task} has "
                    f"{', '.join('--' + each.replace('_', '-') for each in options[self.task])}"
                )
        target_class(self.task).check(self)


def default_settings(settings: type[Settings], arguments: list[str]) -> Settings:
    """Default settings of a command: as `with_recipe`, with the target whose columns its arguments name.

    Raises:
        BadInput: there is no such recipe, or two targets are named.
    """
    defaults: Any = with_recipe(settings, arguments)
    given = {word[2:].partition("=")[0].replace("-", "_") for word in arguments if word.startswith("--")}
    return defaults if "task" in given else replace(defaults, task=task_of(given))


# A run may be resumed with other values of these, and branch off from a run with others: they do not change its result.
NOT_PART_OF_RESULT = {
    "out", "workers", "cpu", "device_batch", "keep_at", "keep_checkpoints", "checkpoint_minutes", "tracker", "estimate",
    "branch_of", "recipe",
}  # fmt: skip


def to_record(settings: Settings) -> dict:
    """The settings as a record holds them."""
    return json.loads(json.dumps(asdict(settings), default=str))


def as_recorded(recorded: dict) -> dict:
    """The settings of a record, with the defaults of options that are newer than the record.

    The defaults are what older runs computed, but for the concentrations of votes models, which were those of Zoobot, and for the
    calibration, which there was none of. Where there are no concentrations, their option is the default, whatever it was.
    """
    later = {each.name: each.default for each in fields(Settings) if each.default is not MISSING}
    settings = json.loads(json.dumps(later, default=str)) | recorded
    if not has_concentrations(settings["task"], settings["likelihood"]):
        settings["head_activation"] = Settings.head_activation
    elif "head_activation" not in recorded:
        settings["head_activation"] = "sigmoid"
    if "calibrate" not in recorded:
        settings["calibrate"] = False
    return settings


def has_concentrations(task: str, likelihood: str) -> bool:
    """Whether the outputs of a run's head become concentrations of Dirichlet distributions."""
    return task == "votes" and likelihood == "dirichlet_multinomial"


def settings_of(record: RunRecord) -> Settings:
    """The settings of a record, with their original types: JSON has neither tuples nor paths.

    Options that are newer than the record have their defaults; options that no longer exist are left out.
    """
    types = {name: {kind, *typing.get_args(kind)} for name, kind in typing.get_type_hints(Settings).items()}
    values = {name: value for name, value in record.settings.items() if name in types}
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(value)
        elif isinstance(value, str) and Path in types[name]:
            values[name] = Path(value)
    with reading("the settings of the run"):
        return Settings(**values)
