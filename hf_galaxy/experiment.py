"""One training run, from its settings to its run folder: what scripts/pretrain.py and scripts/finetune.py have in common."""

import dataclasses
import json
import os
import platform
import shlex
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator

from hf_galaxy import cards
from hf_galaxy.data import (
    Galaxies,
    Label,
    Rows,
    check_tree_columns,
    label_of,
    labelled,
    open_dataset,
    rows_of,
    title_of,
    votes_of,
)
from hf_galaxy.decision_tree import load_tree, tree_of_columns
from hf_galaxy.errors import BadInput
from hf_galaxy.metrics import ClassMetrics, ConstantVotes, VoteMetrics
from hf_galaxy.model import (
    GalaxyConfig,
    GalaxyForImageClassification,
    GalaxyForVotes,
    GalaxyPreTrainedModel,
    load_model,
    resolve_start,
)
from hf_galaxy.run_record import RunRecord
from hf_galaxy.sequence import Share, TrainingSequence, evaluation_batches, training_batches
from hf_galaxy.train import Recipe, discard_checkpoints, evaluate, fit, start_accelerator
from hf_galaxy.views import eval_view, train_view


@dataclass(frozen=True, kw_only=True)
class Settings(Recipe):
    """What a run is made of, besides its recipe."""

    dataset: str
    """A folder made by publish_dataset.py, or a Hub id."""
    out: Path
    """The run folder to make. An unfinished run in it goes on, if its settings are the same."""
    config: str | None = None
    """Configuration of the dataset, if it has several."""
    streaming: bool = False
    """Read the dataset's Parquet files as far as they are needed, where they are, instead of copying all to a cache first."""
    task: Literal["votes", "classes"] = "votes"
    """Predict the volunteers' votes, or a class label."""
    label: str | None = None
    """The label column, for --task classes."""
    tree: tuple[str, ...] | None = None
    """Campaigns whose questions are learnt; by default all of which the dataset has the columns."""
    backbone: str | None = None
    """A timm architecture (convnext_atto), or transformers:FOLDER_OR_HUB_ID."""
    start: str | None = None
    """Weights to start from: a run folder or its Hub id, a .safetensors or .pth file of timm weights, a timm model name with its tag (convnext_atto.d2_in1k), hf_hub:ORG/NAME, or transformers:FOLDER_OR_HUB_ID."""
    image_size: int | None = None
    """Side of what the backbone sees, in pixels; by default that of the run it starts from, else 224."""
    crop: float | None = None
    """Share of the picture's side that it sees, from the centre; by default that of the run it starts from, else 1."""
    flip: bool = True
    """Mirror pictures at random; not for labels that know a spiral's handedness."""
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
    workers: int = min(8, max(1, (os.cpu_count() or 1) // 2))
    """Processes that decode pictures, for each training process."""
    cpu: bool = False
    """Train on the CPU even if there is a GPU."""

    def check(self) -> None:
        """As in `Recipe`, and of what is added here."""
        super().check()
        if self.image_size is not None and self.image_size < 1:
            raise BadInput(f"--image-size {self.image_size}: must be more than 0")
        if not (0 <= self.head_dropout < 1 and 0 <= self.drop_path < 1):
            raise BadInput("--head-dropout and --drop-path are shares, in [0, 1)")
        if self.min_votes < 1 or self.workers < 0:
            raise BadInput("--min-votes must be at least 1, --workers must not be negative")


HARDWARE = {"--workers", "--cpu", "--out"}  # a run may go on with others of these: they do not change what it computes


def carry_out(settings: Settings) -> RunRecord:
    """Train, evaluate and save. Everything that can be wrong with the settings is refused before training starts."""
    settings.check()
    accelerator = start_accelerator(settings.precision, settings.cpu)
    share = Share(accelerator.process_index, accelerator.num_processes, settings.accumulate)
    share.micro_batch(settings.batch_size)
    fields, weights = resolve_start(settings.backbone, settings.start, settings.image_size)
    with accelerator.main_process_first():
        opened = open_dataset(settings.dataset, settings.config, settings.streaming)
    splits = {split: rows_of(opened, split, settings.dataset) for split in ("train", "validation", "test")}

    # 1. What is learnt: the model, the target of its batches, and the constant that its metrics stand beside.
    torch.manual_seed(settings.seed)
    framing = dict(image_size=settings.image_size, crop=settings.crop)
    fields |= {name: value for name, value in framing.items() if value is not None}
    fields |= dict(head_dropout=settings.head_dropout, drop_path=settings.drop_path)
    if settings.task == "votes":
        tree = load_tree(list(settings.tree)) if settings.tree else tree_of_columns(splits["train"].column_names)
        whole = load_tree(list(tree.campaigns)).questions if not settings.tree else tree.questions
        missing = ", ".join(q.name for q in whole if q.name not in {held.name for held in tree.questions})
        without = f"; the dataset has no votes for {missing}" if missing else ""
        accelerator.print(f"learning {len(tree.questions)} questions of {tree.name}{without}")
        check_tree_columns(splits["train"], tree, settings.dataset)
        model = GalaxyForVotes(GalaxyConfig(tree=tree, likelihood=settings.likelihood, **fields))
        constant = ConstantVotes.of(votes_of(splits["train"], tree), tree, settings.min_votes)
        model.start_from_constant(constant.concentrations, constant.fractions)
        baseline, about = constant.to_dict(), {"tree": tree.name, "questions": [q.name for q in tree.questions]}
    else:
        label = label_of(splits["train"], settings.label or "", settings.dataset)
        names, labels_in = list(label.names), {}
        for split, rows in splits.items():
            splits[split], labels_in[split] = labelled(rows, label, settings.dataset)
            if left_out := len(rows) - len(splits[split]):
                accelerator.print(
                    f"{left_out:,} of the {len(rows):,} galaxies of split {split} have no {label.column!r}; they are left out"
                )
        labels = dict(id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)})
        model = GalaxyForImageClassification(GalaxyConfig(**labels, **fields))
        counts = torch.bincount(torch.from_numpy(labels_in["train"]), minlength=len(names))
        # A class without a training galaxy counts as half a galaxy: unlikely, not impossible.
        baseline, about = {"log_priors": (counts.clamp_min(0.5) / counts.sum()).log().tolist()}, {"classes": names}
    _try_out(model, weights)

    # 2. The run folder, which says at once what it will hold.
    record = RunRecord(
        command=" ".join(map(shlex.quote, sys.argv)),
        settings=json.loads(json.dumps(dataclasses.asdict(settings), default=str)),
        dataset={
            "name": settings.dataset,
            "title": title_of(settings.dataset),
            "splits": {s: len(rows) for s, rows in splits.items()},
            **about,
        },
        model={
            "backbone": model.config.backbone,
            "start": settings.start,
            "image_size": model.config.image_size,
            "crop": model.config.crop,
            "parameters": model.parameter_counts(),
        },
        environment=_environment(accelerator),
        baseline=baseline,
    )
    if accelerator.is_main_process:
        _claim(settings.out, record)
    accelerator.wait_for_everyone()

    # 3. Training, with the loss on the validation split to choose the best epoch by.
    framing = model.config.framing
    galaxies = Galaxies(splits["train"], framing, _target(model, record), fast=True)
    sequence = TrainingSequence(galaxies, settings.seed, settings.flip, share, settings.batch_size)

    def measured_on(split):
        return measure(model, record, splits[split], settings.batch_size, settings.workers, accelerator)

    record.training = fit(
        model,
        settings,
        len(galaxies),
        batches=lambda steps: training_batches(sequence, settings.batch_size, steps, share, settings.workers),
        to_inputs=lambda batch: _inputs(batch, train_view(batch["pixels"], batch["affine"], framing)),
        validate=lambda: measured_on("validation").loss,
        accelerator=accelerator,
        folder=settings.out,
    )

    # 4. The test split, once.
    record.results["test"] = measured_on("test").compute()
    record.finished = True
    if accelerator.is_main_process:
        _save(model, record, settings.out)
        print(f"\n{cards.metrics_table(record.results['test'])}\n\nrun folder: {settings.out}")
    accelerator.wait_for_everyone()
    return record


def _try_out(model, weights):
    """Give the backbone the weights it starts from, and the model one empty picture."""
    size = model.config.image_size
    try:
        if weights is not None:
            model.backbone.load_state_dict(weights)
        with torch.no_grad():
            model.eval()(pixel_values=torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:  # each library has words of its own
        reason = " ".join(str(error).split())[:300]
        raise BadInput(
            f"backbone {model.config.backbone}: does not work with pictures of {size} px or with --start ({reason})"
        ) from error


def load_run(folder: Path) -> tuple[GalaxyPreTrainedModel, RunRecord]:
    """The model and the record of a finished run.

    Raises:
        BadInput: there is no run in the folder, or it is not finished.
    """
    record = RunRecord.load(folder)
    if not record.finished:
        raise BadInput(f"{folder}: the run is not finished; start it again with the same command and it goes on")
    return load_model(folder), record


def measure(
    model: GalaxyPreTrainedModel, record: RunRecord, rows: Rows, batch_size: int, workers: int,
    accelerator: Accelerator,
) -> VoteMetrics | ClassMetrics:  # fmt: skip
    """The metrics of a run's model on some rows, shared out over all processes."""
    if isinstance(model, GalaxyForVotes):
        constant = ConstantVotes.from_dict(record.baseline)
        metrics = VoteMetrics(model.tree, constant, record.settings["min_votes"], model.config.likelihood)
    else:
        metrics = ClassMetrics(record.dataset["classes"], torch.tensor(record.baseline["log_priors"]))
    framing = model.config.framing
    galaxies = Galaxies(rows, framing, _target(model, record))
    share = Share(accelerator.process_index, accelerator.num_processes)
    batches = evaluation_batches(galaxies, batch_size, share, workers)
    return evaluate(
        model, batches, lambda batch: _inputs(batch, eval_view(batch["pixels"], framing)), metrics, accelerator
    )


def _target(model, record):
    if isinstance(model, GalaxyForVotes):
        return model.tree
    return Label(record.settings["label"], tuple(record.dataset["classes"]))


def _inputs(batch, pixel_values):
    return {"pixel_values": pixel_values} | {k: v for k, v in batch.items() if k in ("votes", "labels")}


def _environment(accelerator):
    libraries = ("hf_galaxy", "torch", "timm", "transformers", "datasets", "accelerate")
    cuda = accelerator.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name()
        if cuda
        else f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)",
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
    }


def _claim(out, record):
    """Make the run folder, or make sure that the unfinished run in it is the same."""
    if (out / "run.json").exists():
        earlier = RunRecord.load(out)
        if earlier.finished:
            raise BadInput(f"--out {out}: holds a finished run; choose another, or remove it")
        differing = [f"--{k.replace('_', '-')}" for k, v in record.settings.items() if v != earlier.settings.get(k)]
        if differing := sorted(set(differing) - HARDWARE):
            raise BadInput(
                f"--out {out}: holds an unfinished run with another {', '.join(differing)}; "
                "give the same to go on, choose another --out, or remove it"
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"--out {out}: exists and is no run folder; choose another")
    try:
        out.mkdir(parents=True, exist_ok=True)
        record.save(out)
    except OSError as error:
        raise BadInput(f"--out {out}: cannot be written ({error.strerror})") from error


def _save(model, record, out):
    partial = out / ".saving"
    model.save_pretrained(partial)
    (partial / "README.md").write_text(cards.model_card(record))
    for file in partial.iterdir():
        os.replace(file, out / file.name)
    partial.rmdir()
    record.save(out)  # last of all: it says that the others are complete
    discard_checkpoints(out)
