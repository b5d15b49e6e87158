"""`hf_galaxy.finetune`: the command of that name as a function."""

import dataclasses
import inspect
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hf_galaxy.calls.data import named_data
from hf_galaxy.calls.options import command_of
from hf_galaxy.calls.process_state import own_process_state
from hf_galaxy.calls.run import Run
from hf_galaxy.calls.run_folder import RunFolder
from hf_galaxy.calls.target import with_target
from hf_galaxy.commands.finetune import Finetune
from hf_galaxy.errors import BadInput, Occupied
from hf_galaxy.reports.run_record import FILE, RunRecord
from hf_galaxy.training.recipe import with_recipe
from hf_galaxy.training.run import run_training
from hf_galaxy.training.settings import NOT_PART_OF_RESULT, as_recorded, to_record
from hf_galaxy.typed_options import checked

RUNS = Path("runs")
OWN = ("dataset", "start", "out", "estimate")  # options of the command that are no keywords here

logger = logging.getLogger(__name__)


def finetune(
    data: Any,
    *,
    start: str | Path | RunFolder,
    target: str | Sequence[str] = "votes",
    out: str | Path | None = None,
    **options: Any,
) -> Run:
    """Finetune a pretrained backbone on a dataset: what the command `hf-galaxy finetune` does, with its options and defaults.

    The same call again resumes a run that was interrupted, and returns one that is finished. A progress bar shows the training
    (TQDM_DISABLE=1 hides it), and an interactive session also the log. Whatever training sets in the process (threads, random
    numbers, determinism, warning filters, the state of Accelerate) is as before when the call returns. A call uses one device;
    `hf-galaxy launch finetune` trains on several.

    Args:
        data: the dataset: a folder made by `hf-galaxy publish`, the Hub id of any dataset with pictures, a folder of pictures with a
            subfolder for each class, or a `datasets.Dataset` or `DatasetDict`; or a table of galaxies: its file ("survey.csv"), or a
            pandas DataFrame, with a column of pictures (bytes, PIL images, arrays) or of their paths in `images="cutouts/"`; or a
            list of several.
        start: pretrained weights: a timm model name with its tag ("convnext_atto.d2_in1k"), a run folder or its Hub id, a `Run`,
            a .safetensors or .pth file of timm weights, "hf_hub:ORG/NAME", or "transformers:FOLDER_OR_HUB_ID".
        target: what is learnt. "votes": those of volunteers, for all questions that the dataset has votes for. A column of texts, of a
            ClassLabel, of bool, or of 0 and 1 (1.0, too): its classes ("morphology=merger": this class against the rest). A column of floats,
            or a list of them: these values, by regression. A list of yes/no columns: these labels. Other whole numbers may be
            classes or values, and a list of 0 and 1 values or labels: add `task="classes"`, `task="values"` or `task="labels"`.
        out: run folder to create. None: a new one in the folder `runs`, named after data and target, which the log names.
        **options: further options of the command, their dashes as underscores: `epochs=10`, `learning_rate=1e-3`, `image_size=128`
            (pixels), `subset=1/8`, `train="head"`, `recipe="zoobot2"`, `cpu=True`, ... ; `hf-galaxy finetune --help` explains
            all of them, and `help(hf_galaxy.finetune)` lists their defaults.

    Returns:
        The finished run: its model, its results beside their baselines, its card.

    Raises:
        BadInput: an option is unknown, has the wrong type, or cannot work with the others; the data lack the target; or `out` holds
            something else. The message says in one line what to do.
        FloatingPointError: a loss is not finite.
        Interrupted: on SIGTERM, after a checkpoint; the same call resumes.

    Example:
        >>> run = hf_galaxy.finetune("data/rings", target="ring", start="convnext_atto.d2_in1k", epochs=10)
        >>> run.results["test"]["accuracy"]["model"]
        >>> run.predict("new_pictures/")
    """
    if own := [name for name in OWN if name in options]:
        raise BadInput(
            f"{own[0]}: is an option of the command; here the datasets are `data`, and an estimate is of the command alone"
        )
    given = checked(
        Finetune, options | {"start": str(start.folder) if isinstance(start, RunFolder) else start}, unnamed=OWN
    )
    with own_process_state(Finetune):
        names, given = named_data(data, given)
        given["dataset"] = names
        given = with_target(target, given)
        folders = _new_folders(_settings(given, Path()), target) if out is None else [Path(out)]
        for folder in folders:
            if out is None:
                logger.info("run folder: %s", folder)
            try:
                run_training(_settings(given, folder), command_of("finetune", Finetune, given | {"out": folder}))
            except Occupied as occupied:
                if occupied.same:
                    logger.info("%s: holds this run, finished; nothing is trained", folder)
                elif out is None:  # as many galaxies as before, but others: only now it is known
                    continue
                else:
                    raise
            run = Run(folder)
            logger.info("%r", run)
            return run
    raise AssertionError("there are always more folders")


def _settings(given: dict[str, Any], out: Path) -> Finetune:
    named = [f"--{name}={given[name]}" for name in ("recipe", "backbone", "start") if given.get(name)]
    defaults: Any = with_recipe(Finetune, named)
    return dataclasses.replace(defaults, **given, out=out)


def _new_folders(settings: Finetune, target: str | Sequence[str]) -> Iterator[Path]:
    """Folders in RUNS that do not exist, or hold a run with the same settings."""
    named = [Path(name).name for name in settings.dataset] + ([target] if isinstance(target, str) else list(target))
    if target == "votes" and settings.task != "votes":  # which `label`, `values` or `labels` names
        named[-1] = settings.task
    name = re.sub(r"[^\w.=-]+", "_", "-".join(named))[:80].strip("._-") or "run"
    number = 1
    while True:
        folder = RUNS / (name if number == 1 else f"{name}-{number}")
        if _is_free(folder, settings):
            yield folder
        number += 1


def _is_free(folder: Path, settings: Finetune) -> bool:
    if not (folder / FILE).exists():
        return not folder.exists() or not any(folder.iterdir())
    try:
        before = as_recorded(RunRecord.load(folder).settings)
    except BadInput:
        return False
    ignored = NOT_PART_OF_RESULT | ({"precision"} if settings.precision is None else set())
    return all(before.get(name) == value for name, value in to_record(settings).items() if name not in ignored)


def _signature() -> inspect.Signature:
    """With every option of the command, for help and completion."""
    own = [each for each in inspect.signature(finetune).parameters.values() if each.name != "options"]
    further = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in dataclasses.fields(Finetune)
        if field.name not in OWN
    ]
    return inspect.Signature([*own, *further], return_annotation=Run)


finetune.__signature__ = _signature()  # type: ignore[attr-defined]
