"""Would the answer change if the galaxies were farther away, or the survey worse: predictions of degraded pictures, their drift, and a correction for it.

    hf-galaxy degrade --run runs/survey --dataset data/survey --distance 1.5 2 3 --psf-fwhm 2.5 --out degraded

The galaxies of --dataset are predicted as they are, and again smaller, dimmer, blurred and with the noise of the survey.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hf_galaxy import plain_values
from hf_galaxy.command_line import Command, OutputPath, RunNames, typed
from hf_galaxy.commands.predict import Inference
from hf_galaxy.errors import BadInput
from hf_galaxy.files import check_new, new_folder, write_json

if TYPE_CHECKING:
    from hf_galaxy.data.degrading_steps import Step
    from hf_galaxy.data.pictures import Rendering
    from hf_galaxy.evaluation.drift import Answers
    from hf_galaxy.models.degraded_inputs import Degrading
    from hf_galaxy.models.model import GalaxyPreTrainedModel
    from hf_galaxy.models.prediction_inputs import Source
    from hf_galaxy.models.predictions import Predictor
    from hf_galaxy.reports.drift_report import Drift

LEAST = 50  # galaxies at a step
PREDICTIONS = "predictions"


@dataclass(frozen=True, eq=False, kw_only=True)
class Galaxies:
    """What is degraded, predicted and measured, at which steps.

    Attributes:
        found: number of galaxies of which the sources are a sample, or all.
    """

    sources: list[Source]
    found: int
    predictor: Predictor
    degrading: Degrading
    steps: list[Step]
    answers: Answers

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    def at(self, step: Step) -> list[Source]:
        """The sources with a column that names the step."""
        from hf_galaxy.models.degraded_inputs import in_step

        return [in_step(each, step) for each in self.sources]


@dataclass(frozen=True, kw_only=True)
class Degrade(Inference):
    """Predict the same galaxies again with worse pictures, and measure how each answer drifts. An interrupted command resumes when it is run again."""

    run: RunNames
    """The run folder, or its Hub id; several that answer the same questions are averaged, an ensemble. It must predict votes, classes or labels."""
    dataset: tuple[str, ...]
    """The galaxies, as of hf-galaxy predict: folders of picture files, published datasets (folders or Hub ids), or tables of galaxies."""
    out: OutputPath
    """Output folder, created by the command: a page with a figure, the predictions at each step, and the table of corrections."""
    distance: tuple[float, ...] | None = None
    """Steps: factors by which the galaxies are farther away, such as 1.5 2 3, where redshift does not matter."""
    to_redshift: tuple[float, ...] | None = None
    """Steps instead: redshifts to which they are moved, from their own (--redshift)."""
    new_psf_fwhm: tuple[float, ...] | None = None
    """Steps: FWHM of the new pictures' PSF, in arcsec; by default that of the pictures."""
    shallower: tuple[float, ...] | None = None
    """Steps: magnitudes by which the survey is less deep; 1 makes its noise 2.5 times as large."""
    pixels: tuple[float, ...] | None = None
    """Steps: factors by which pixels are wider. Options of steps with one value have it at all steps, others one for each."""
    redshift: str | None = None
    """Redshift of the galaxies: a column of them, or one number."""
    psf_fwhm: str | None = None
    """FWHM of their pictures' PSF, in arcsec: a number, or a column of them; 0 if it can be neglected. What is farther away is blurred until it has this PSF again."""
    arcsec_per_pixel: str | None = None
    """Side of a pixel of their pictures: a number, or a column of them; without it FWHMs are in pixels."""
    survey_pixel: str | None = None
    """Side of the survey's own pixels, in arcsec, if pictures were reduced from them: a number, or a column. What is farther away then has as many pixels as the survey has."""
    psf: Literal["moffat", "gaussian"] = "moffat"
    """Profile of the PSF, as GalSim has it; moffat with beta 3.5."""
    framing: Literal["galaxy", "sky"] = "galaxy"
    """What a new picture shows: as much of the galaxy as before, as those of Galaxy Zoo do, which scale with it; or as much of the sky."""
    dimming: float = 3.0
    """With --to-redshift, surface brightness dims by (1 + z) to the power of minus this: 3 for counts or AB magnitudes in one band without K correction, 4 for all light."""
    picture_stretch: Literal["lupton", "asinh", "sqrt", "log", "linear"] = "lupton"
    """How brightness in 8-bit pictures follows from light; lupton is the asinh of the mean of the colours, and of a grey picture the asinh. FITS files and fluxes need none."""
    picture_softening: float = 0.1
    """Of that asinh: share of white below which it is linear; about 0.1 for colour pictures of SDSS."""
    picture_limits: Literal["fixed", "file"] = "fixed"
    """Whether black and white are the same light in all 8-bit pictures, or percentiles (--low, --high) of each picture's own values."""
    campaign: tuple[str, ...] | None = None
    """Of a model of several Galaxy Zoo campaigns: those whose questions are measured."""
    galaxies: int = 1000
    """Number of galaxies, drawn at random; 0 for all."""
    seed: int = 0
    """Of the noise, which each galaxy has from its name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.run, str):
            object.__setattr__(self, "run", (self.run,))

    def check(self) -> None:
        """Refuse options that nothing can be degraded with.

        Raises:
            BadInput: names the option.
        """
        super().check()
        if self.galaxies and self.galaxies < LEAST:
            raise BadInput(f"--galaxies {self.galaxies}: so few show no drift; give at least {LEAST}, or 0 for all")
        if not 0 <= self.dimming <= 10:
            raise BadInput(f"--dimming {self.dimming:g}: is an exponent, from 0 to 10")
        if self.to_redshift and self.redshift is None:
            raise BadInput("--to-redshift: needs the redshifts of the galaxies; give --redshift COLUMN, or one number")
        if self.survey_pixel is not None and self.arcsec_per_pixel is None:
            raise BadInput("--survey-pixel: is in arcsec; give --arcsec-per-pixel, too")
        if self.redshift is not None and not self.to_redshift:
            raise BadInput("--redshift: is for --to-redshift")
        if self.psf_fwhm is None and (self.distance or self.to_redshift or self.new_psf_fwhm):
            raise BadInput(
                "--psf-fwhm: is needed, as what is farther away is blurred more; give the FWHM in arcsec (with --arcsec-per-pixel), or in pixels of the pictures, "
                "or 0 if it can be neglected"
            )
        steps, degrading = self.steps(), self.degrading(self.rendering())
        if not degrading.columns:  # then the answer is the same for all galaxies
            for step in steps[1:]:
                try:
                    change = degrading.change(step, None, 0)
                except BadInput as error:
                    raise BadInput(f"{step.name}: a galaxy {error}") from error
                if change.is_none:
                    raise BadInput(f"{step.name}: nothing would change; the pictures are so already")

    def steps(self) -> list[Step]:
        """The original, and the steps; raises as `steps_of`."""
        from hf_galaxy.data.degrading_steps import steps_of

        return steps_of(self.distance, self.to_redshift, self.new_psf_fwhm, self.shallower, self.pixels)

    def degrading(self, rendering: Rendering) -> Degrading:
        """How pictures are degraded.

        Args:
            rendering: of files, whose percentiles are those of the pictures' limits, too.

        Raises:
            BadInput: a number is none that its option can have.
        """
        from hf_galaxy.data.light import PictureStretch
        from hf_galaxy.models.degraded_inputs import Degrading

        stretch = PictureStretch(
            self.picture_stretch, self.picture_softening, self.picture_limits, rendering.low, rendering.high
        )
        redshift, fwhm = (
            _number_or_column("--redshift", self.redshift, 1e-6),
            _number_or_column("--psf-fwhm", self.psf_fwhm or "0", 0),
        )
        scale = _number_or_column("--arcsec-per-pixel", self.arcsec_per_pixel or "1", 1e-9)
        survey = _number_or_column("--survey-pixel", self.survey_pixel, 1e-9)
        assert fwhm is not None
        assert scale is not None
        return Degrading(redshift, fwhm, scale, survey, stretch, self.dimming, self.psf, self.framing, self.seed)


def _number_or_column(option: str, text: str | None, least: float) -> float | str | None:
    if text is None:
        return None
    try:
        number = plain_values.number(text)
    except ValueError as error:
        if _is_number_of_python(text):  # no name of a column
            raise BadInput(f"{option} {text}: {error}, or the name of a column") from error
        return text
    if number < least:
        raise BadInput(f"{option} {text}: must be {'above 0' if least else 'at least 0'}")
    return number


def _is_number_of_python(text: str) -> bool:
    """Whether it is a number, or inf, nan or 1_000."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def main(settings: Degrade) -> None:
    settings.check_there(settings.dataset)
    if not settings.run:
        raise BadInput("--run: names no run")
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from hf_galaxy.reports.drift_report import columns_of, sentences_of, table_rows

    drift = degrade(settings, typed())
    if drift is None:  # in another process than the first
        return
    shown = Table(*columns_of(drift), box=box.SIMPLE)
    for row in table_rows(drift):
        shown.add_row(*row)
    Console(markup=False, width=140).print(shown)
    print("\n".join(sentences_of(drift)))
    print(f"written to {settings.out}")


def degrade(settings: Degrade, command: str) -> Drift | None:
    """Predict, measure, and write the folder; None in other processes than the first.

    Args:
        command: for the page, what makes it again.

    Raises:
        BadInput: what is wrong with an option or with the galaxies.
    """
    accelerator = settings.start()
    from hf_galaxy.importing.joining import JoinedTable
    from hf_galaxy.models.degraded_inputs import STEP, sampled
    from hf_galaxy.models.prediction_columns import PredictionColumns
    from hf_galaxy.models.prediction_inputs import sources_of
    from hf_galaxy.models.start import load_model, refuse_bare_encoder
    from hf_galaxy.training.processes import on_main_process

    on_main_process(accelerator, check_new, settings.out)
    table = JoinedTable.of(settings)
    for name in settings.run:
        refuse_bare_encoder(name)
    models = [load_model(name) for name in settings.run]
    answers = answers_of(models[0], settings.campaign)
    columns = PredictionColumns(models[0], members=len(models) * settings.views)
    predictor = settings.predictor(models, settings.run, accelerator, columns)
    degrading = settings.degrading(predictor.rendering)
    joined = set() if table is None else set(table.columns.column_names)
    for option, column in degrading.columns_by_option.items():
        if column == "id_str":
            raise BadInput(f"--{option} id_str: holds the names of galaxies; give a number, or a column of numbers")
    keep = [*(settings.keep or ()), *(column for column in degrading.columns if column not in joined)]
    reading = settings.for_model(models[0].config.bands)
    taken = [*predictor.schema.names, STEP]
    with columns_named_by(degrading):
        sources = sources_of(settings.dataset, reading, settings.split, table, taken, predictor.rendering, keep)
    galaxies = Galaxies(
        sources=sampled(sources, settings.galaxies),
        found=sum(map(len, sources)),
        predictor=predictor,
        degrading=degrading,
        steps=settings.steps(),
        answers=answers,
    )
    check_galaxies(galaxies)
    return written(galaxies, settings, command)


@contextmanager
def columns_named_by(degrading: Degrading) -> Iterator[None]:
    """Refusals within name the option that a column was given with, not --keep, by which it comes."""
    try:
        yield
    except BadInput as error:
        for option, column in degrading.columns_by_option.items():
            if str(error).startswith(f"--keep {column}:"):
                raise BadInput(str(error).replace("--keep", f"--{option}", 1)) from error
        raise


def answers_of(model: GalaxyPreTrainedModel, campaigns: Sequence[str] | None) -> Answers:
    """What a model answers.

    Args:
        campaigns: of a model of votes, those that are wanted; None: all.

    Raises:
        BadInput: it predicts values, or has no such campaign.
    """
    from hf_galaxy.decision_tree import DecisionTree
    from hf_galaxy.evaluation.drift import Answers
    from hf_galaxy.models.model import GalaxyForImageClassification, GalaxyForVotes

    if isinstance(model, GalaxyForVotes):
        tree = model.tree
        if campaigns:
            if unknown := [name for name in campaigns if name not in tree.campaigns]:
                raise BadInput(f"--campaign {unknown[0]}: the model has {', '.join(tree.campaigns)}")
            tree = DecisionTree("+".join(campaigns), tuple(q for q in tree.questions if q.campaign in campaigns))
        return Answers.of_tree(tree)
    if campaigns:
        raise BadInput("--campaign: is for models of votes; leave it out")
    if isinstance(model, GalaxyForImageClassification):
        return Answers.of_classes(model.prediction_columns, not model.multi_label)
    raise BadInput(
        f"--run: predicts {', '.join(model.prediction_columns[:5])}, values that may change with distance themselves; give a model of votes, classes or labels"
    )


def check_galaxies(galaxies: Galaxies) -> None:
    """Refuse too few galaxies before anything is predicted.

    Raises:
        BadInput: says how many there are, at which step.
    """
    degrading, sources = galaxies.degrading, galaxies.sources
    if (number := len(galaxies)) < LEAST:
        raise BadInput(f"--dataset: has {number} galaxies, which show no drift; give at least {LEAST}")
    for step in galaxies.steps[1:] if degrading.columns else ():
        reasons = degrading.reasons(step, sources)
        if len(able := [*islice((each for each in reasons if each is None), LEAST)]) < LEAST:
            why = next(each for each in degrading.reasons(step, sources) if each is not None)
            raise BadInput(
                f"{step.name}: only {len(able)} of {number:,} galaxies can be degraded so, and at least {LEAST} are needed; the first that cannot {why}"
            )


def written(galaxies: Galaxies, settings: Degrade, command: str) -> Drift | None:
    """Predict the galaxies at each step into a new folder, or what an interrupted call has not, and measure. Every process must call it."""
    from accelerate.utils import broadcast_object_list

    from hf_galaxy.models.degraded_inputs import DegradedReader
    from hf_galaxy.models.prediction_inputs import fingerprint_of
    from hf_galaxy.training.processes import on_main_process

    predictor, degrading, steps = galaxies.predictor, galaxies.degrading, galaxies.steps
    accelerator = predictor.accelerator
    sources = [(each.name, each.split, fingerprint_of(each)) for each in galaxies.sources]
    depends_on = f"{predictor.schema} {predictor.schema.metadata} {sources} {predictor.batch_size} {predictor.rendering} {degrading} {steps} {galaxies.answers.columns}"
    fingerprint = hashlib.sha256(depends_on.encode()).hexdigest()
    with ExitStack() as stack:
        place: list[Any] = [
            on_main_process(accelerator, lambda: stack.enter_context(new_folder(settings.out, fingerprint)))
        ]
        if accelerator.num_processes > 1:
            broadcast_object_list(place)
        for number, step in enumerate(steps):
            reader = partial(DegradedReader, degrading=degrading, step=step)
            replace(predictor, reader=reader).write(galaxies.at(step), _folder(place[0], number))
        accelerator.wait_for_everyone()
        return on_main_process(accelerator, _finish, galaxies, settings, command, place[0])


def _folder(folder: Path, step: int) -> Path:
    return folder / PREDICTIONS / f"step-{step}"


def _finish(galaxies: Galaxies, settings: Degrade, command: str, folder: Path) -> Drift:
    """Measure, and write all but the predictions."""
    from hf_galaxy.data.degrading_steps import axis_of
    from hf_galaxy.evaluation.drift_correction import Correction
    from hf_galaxy.evaluation.drift_measurement import pairs_of, step_drift
    from hf_galaxy.files import whole_file
    from hf_galaxy.models.prediction_files import finish
    from hf_galaxy.reports.drift_report import Drift, csv_of, figure_of, page_of
    from hf_galaxy.reports.page import write_page

    predictor, steps, answers = galaxies.predictor, galaxies.steps, galaxies.answers
    left_out = [finish(predictor, _folder(folder, s), galaxies.at(step), ())[1] for s, step in enumerate(steps)]
    measured = []
    for s, step in enumerate(steps[1:], 1):
        pairs = partial(pairs_of, _folder(folder, 0), _folder(folder, s), answers)
        measured.append(step_drift(answers, pairs))
        if measured[-1].galaxies < LEAST:
            raise BadInput(
                f"{step.name}: only {measured[-1].galaxies} galaxies could be degraded, and at least {LEAST} are needed; "
                f"{_folder(folder, s) / 'unreadable.csv'} says why"
            )
    number, found = len(galaxies), galaxies.found
    how = {"galaxies": f"{number:,} of {found:,}, drawn at random" if number < found else f"all {number:,}"}
    how |= galaxies.degrading.in_words(
        "pixels" if settings.arcsec_per_pixel is None else "arcsec", bool(predictor.models[0].config.bands)
    )
    axis, places = axis_of(steps[1:])
    reference = galaxies.degrading.reference(axis, galaxies.sources, places[0])
    drift = Drift(
        axis, reference, tuple(places), tuple(step.name for step in steps[1:]), answers, tuple(measured),
        tuple(left - left_out[0] for left in left_out[1:]), how,
    )  # fmt: skip
    curves = {name: tuple(step.curves[a] for step in measured) for a, name in enumerate(answers.columns)}
    Correction(axis, reference, tuple(places), curves, answers.tree).write(folder)
    write_json(folder / "drift.json", drift.as_dict())
    with whole_file(folder / "drift.csv") as file:
        file.write_bytes(csv_of(drift).encode())
    figure = figure_of(drift)
    write_page(folder, page_of(drift, figure, command), [figure])
    return drift


command = Command(Degrade, main)

if __name__ == "__main__":
    command()
