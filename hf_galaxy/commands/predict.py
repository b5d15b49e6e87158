"""Predictions of a finished run for every galaxy of a dataset, or of a folder of pictures, as Parquet.

hf-galaxy predict --run runs/ceers --dataset data/ceers --out predictions/ceers
"""

import csv
import hashlib
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hf_galaxy.command_line import Command, OutputPath, RunNames
from hf_galaxy.cores import check_processes
from hf_galaxy.errors import BadInput
from hf_galaxy.files import Share, check_new, new_folder, part_of_folder
from hf_galaxy.importing.reading import Reading

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hf_galaxy.models.model import GalaxyPreTrainedModel
    from hf_galaxy.models.prediction_columns import PredictionColumns
    from hf_galaxy.models.prediction_files import Format
    from hf_galaxy.models.prediction_inputs import Source
    from hf_galaxy.models.predictions import Predictor


@dataclass(frozen=True, kw_only=True)
class Inference(Reading):
    """How galaxies are predicted: what the commands predict and embed have in common."""

    split: str | None = None
    """Split of the dataset; by default all of them."""
    keep: tuple[str, ...] | None = None
    """Columns of the galaxies, such as ra dec redshift, that are written beside what is computed; of a folder of pictures, those of its metadata.csv."""
    views: Literal[1, 4, 8] = 1
    """Average over this number of views of each galaxy: 4 quarter turns, or 8, also mirrored. It takes as many times longer."""
    embeddings_dtype: Literal["float32", "float16"] = "float32"
    """Type of the features in the column `embedding`; float16 takes half of the disk, and has three digits."""
    batch_size: int = 128
    """Batch size per process."""
    workers: int = 1
    """Processes that decode pictures, per predicting process; at most one for a published dataset."""
    precision: Literal["no", "bf16", "fp16"] | None = None
    """Mixed precision; by default that of `accelerate launch` or `accelerate config`."""
    cpu: bool = False
    """Predict on the CPU even if there is a GPU."""
    runtime: Literal["torch", "onnx"] = "torch"
    """What computes the network: torch; or ONNX Runtime, which is faster on CPUs for many networks and equal to 1e-4 of the largest value. It needs pip install 'hf_galaxy[onnx]', and exports the model first, once, in 10 to 60 seconds."""
    crop: float | None = None
    """Share of a picture's shorter side that is kept, as a square from its centre; by default that of the model's training set."""
    size: int | None = None
    """Shorter side in pixels to which larger pictures are reduced, 0 to leave them as they are; by default that of the model's training set."""
    quality: int | None = None
    """Quality of the JPEGs that cropped and reduced pictures become; by default that of the model's training set."""

    of_rendering: ClassVar[tuple[str, ...]] = (*Reading.of_rendering, "crop", "size", "quality")

    @property
    def rendering_options(self) -> dict[str, Any]:
        """As of `Reading`; pictures of any size are a `Rendering` without one."""
        options = super().rendering_options
        return options | ({"size": self.size or None} if "size" in options else {})

    def check(self) -> None:
        """Refuse options that no prediction can be made with.

        Raises:
            BadInput: names the option.
        """
        if self.batch_size < 1:
            raise BadInput("--batch-size must be at least 1")
        check_processes("--workers", self.workers, least=0)
        self.rendering()

    def start(self) -> "Accelerator":
        """The accelerator; raises as `check`."""
        from hf_galaxy.training.processes import start_accelerator

        self.check()
        accelerator = start_accelerator(self.precision, self.cpu)
        if self.runtime == "onnx":
            from hf_galaxy.models.onnx_features import check_onnx_runtime

            check_onnx_runtime(accelerator.device, accelerator.mixed_precision)
        return accelerator

    def predictor(
        self,
        models: "Sequence[GalaxyPreTrainedModel]",
        names: Sequence[str],
        accelerator: "Accelerator",
        columns: "PredictionColumns | None",
        embeddings: bool = False,
    ) -> "Predictor":
        """The models with these options.

        Args:
            names: of the models, for the metadata of the tables.
            columns, embeddings: of the tables (`predictions.schema_of`).

        Raises:
            BadInput: the predictions of the models cannot be averaged, or embeddings of several are asked for.
        """
        import pyarrow as pa

        from hf_galaxy.models.ensemble import check_members
        from hf_galaxy.models.predictions import Predictor, one_or_all, schema_of, weights_digest

        renderings = [self.rendering(model.config.file_rendering) for model in models]
        check_members(models, names, renderings)
        if self.embeddings_dtype != "float32" and not embeddings:
            raise BadInput(f"--embeddings-dtype {self.embeddings_dtype}: is for --embeddings; give that, too")
        if embeddings and len(models) > 1:
            raise BadInput(
                f"--embeddings: are of one run, not of {len(models)}; write those of each with hf-galaxy embed"
            )
        digests = [weights_digest(model if columns else model.backbone) for model in models]
        for i, digest in enumerate(digests):
            if (first := digests.index(digest)) < i:
                raise BadInput(f"--run {names[i]}: has the weights of {names[first]}; an ensemble needs different ones")
        about = {
            "model": one_or_all(names),
            "weights_sha256": one_or_all(digests),
            "precision": accelerator.mixed_precision,
        }
        about |= {"views": self.views} if self.views > 1 else {}
        about |= {"runtime": self.runtime} if self.runtime != "torch" else {}
        if columns and any(calibrations := [model.config.calibration for model in models]):
            about["calibration"] = one_or_all(calibrations)
        kind = getattr(pa, self.embeddings_dtype)() if embeddings else None
        schema = schema_of(models, about, columns, kind)
        if self.runtime == "onnx":
            from hf_galaxy.models.onnx_features import with_onnx_features

            models = list(map(with_onnx_features, models))
        return Predictor(models, accelerator, columns, schema, self.batch_size, self.workers, renderings[0], self.views)


@dataclass(frozen=True, kw_only=True)
class InParts(Inference):
    """Inference whose files several commands may share out among themselves."""

    part: str | None = None
    """Write only a part of the files, such as 3/16, the third of sixteen: several machines that share the folder of --out write parts at the same time. Afterwards the same command without --part finishes the folder."""

    def check(self) -> None:
        """As of `Inference`."""
        super().check()
        self.share()

    def share(self) -> Share | None:
        """What `part` names of the files; None: all of them, and what stands beside them.

        Raises:
            BadInput: it names no part.
        """
        return Share.parse(self.part) if self.part else None


@dataclass(frozen=True, kw_only=True)
class Predict(InParts):
    """Write the predictions of a run, one row per galaxy, in Parquet files. An interrupted command resumes when it is run again."""

    run: RunNames
    """The run folder, or its Hub id; several that answer the same questions are averaged, an ensemble."""
    dataset: tuple[str, ...]
    """One or several: folders of picture files (JPEG, PNG, WebP, TIFF, FITS and others), including subfolders, or published datasets (folders or Hub ids), or tables of galaxies (survey.csv, with --images); or picture files."""
    out: OutputPath
    """Output folder, created by the command: part-*.parquet, _columns.md, which says what each column holds, and unreadable.csv if pictures cannot be read."""
    credible: float | None = None
    """Also write for each vote fraction, or for each value, its credible interval of this probability, such as 0.9: columns _low and _high."""
    answers: bool = False
    """Also write for each question the probability that it is asked, QUESTION_asked, and its most expected answer, QUESTION_answer; of classes the most probable one, class."""
    ood: bool = True
    """Write how far each galaxy lies from those of the training, ood_score and unfamiliar, if the run has the file of hf-galaxy familiarity."""
    embeddings: bool = False
    """Also write the features of the backbone, as a column `embedding`."""
    csv: bool = False
    """Also write predictions.csv, without embeddings."""
    format: tuple[Literal["parquet", "csv", "fits", "votable"], ...] = ("parquet",)
    """Also write one table of all galaxies, without embeddings, in these formats: predictions.csv, .fits, .vot. The Parquet files are there in any case."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.run, str):
            object.__setattr__(self, "run", (self.run,))

    @property
    def formats(self) -> "list[Format]":
        """Each once."""
        return list(dict.fromkeys([*self.format, *(["csv"] if self.csv else [])]))  # type: ignore[list-item]


def write(
    predictor: "Predictor",
    sources: "list[Source]",
    out: Path,
    formats: "Collection[Format]" = (),
    share: Share | None = None,
) -> tuple[int, int]:
    """Write the tables of all galaxies into a new folder, or those that an interrupted call has not written yet.

    Every process must call it.

    Args:
        formats: of further tables.
        share: write only some of the tables, for a later call without it, which finishes the folder.

    Returns:
        The numbers of predicted galaxies and of unreadable pictures; in the first process.

    Raises:
        BadInput: as `files.new_folder`; or a format cannot hold the columns.
    """
    from accelerate.utils import broadcast_object_list

    from hf_galaxy.models.prediction_files import check_formats, counts_of, finish
    from hf_galaxy.models.prediction_inputs import fingerprint_of, parts_of
    from hf_galaxy.models.predictions import WHOLE
    from hf_galaxy.training.processes import on_main_process

    check_formats(predictor, sources, formats)
    accelerator, schema = predictor.accelerator, predictor.schema
    galaxies = [(each.name, each.split, fingerprint_of(each)) for each in sources]
    depends_on = f"{schema} {schema.metadata} {galaxies} {predictor.batch_size} {predictor.rendering}"
    fingerprint = hashlib.sha256(depends_on.encode()).hexdigest()
    with ExitStack() as stack:
        folder = part_of_folder(out, fingerprint, share) if share else new_folder(out, fingerprint)
        place: list[Any] = [on_main_process(accelerator, stack.enter_context, folder)]
        if accelerator.num_processes > 1:
            broadcast_object_list(place)
        predictor.write(sources, place[0], share or WHOLE)
        accelerator.wait_for_everyone()
        if share:
            counts = on_main_process(accelerator, counts_of, place[0], share.among(parts_of(sources)), sources)
        else:
            counts = on_main_process(accelerator, finish, predictor, place[0], sources, formats)
        return counts or (0, 0)


def report(out: Path, galaxies: int, unreadable: int, part: str | None = None) -> None:
    """Print what was written.

    Args:
        part: which of the files; None: all of them.
    """
    if part:
        left = f", {unreadable:,} pictures cannot be read" if unreadable else ""
        print(
            f"{out}: the {galaxies:,} galaxies of part {part} are written{left}; once all parts are, the same command without --part "
            "finishes the folder"
        )
        return
    print(f"{out}: {galaxies:,} galaxies")
    if unreadable:
        with open(out / "unreadable.csv", encoding="utf-8", newline="") as file:
            first = next(csv.DictReader(file))
        print(
            f"{unreadable:,} pictures cannot be read, such as {first['id_str']}: {first['reason']}; {out / 'unreadable.csv'} lists them"
        )


def main(settings: Predict) -> None:
    settings.check_there(settings.dataset)
    if not settings.run:
        raise BadInput("--run: names no run")
    from hf_galaxy.importing.joining import JoinedTable
    from hf_galaxy.models.familiarity import Familiarity
    from hf_galaxy.models.prediction_columns import PredictionColumns
    from hf_galaxy.models.prediction_inputs import sources_of
    from hf_galaxy.models.start import load_model, refuse_bare_encoder
    from hf_galaxy.training.processes import on_main_process

    accelerator = settings.start()
    on_main_process(accelerator, check_new, settings.out)
    table = JoinedTable.of(settings)
    for name in settings.run:
        refuse_bare_encoder(name)
    models = [load_model(name) for name in settings.run]
    familiarity = Familiarity.of_run(settings.run[0]) if settings.ood else None
    members = len(models) * settings.views
    columns = PredictionColumns(models[0], settings.credible, settings.answers, familiarity, members, models[1:])
    predictor = settings.predictor(models, settings.run, accelerator, columns, settings.embeddings)
    reading = settings.for_model(models[0].config.bands)
    sources = sources_of(
        settings.dataset, reading, settings.split, table, predictor.schema.names, predictor.rendering, settings.keep
    )
    counts = write(predictor, sources, settings.out, settings.formats, settings.share())
    if accelerator.is_main_process:
        report(settings.out, *counts, settings.part)


command = Command(Predict, main)

if __name__ == "__main__":
    command()
