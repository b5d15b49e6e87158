"""Try everything on drawn galaxies: publish, check, pretrain, finetune, and look at a page of the results.

    hf-galaxy demo --out demo
    hf-galaxy demo --out demo --quick

It takes about two minutes on two cores. Whatever interrupts it, the same command goes on from there.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hf_galaxy.command_line import Command, OutputPath
from hf_galaxy.commands import finetune, pretrain
from hf_galaxy.cores import available_cores, check_processes
from hf_galaxy.errors import BadInput, unwritable
from hf_galaxy.files import only_writer_of, remove_partial, whole_file, write_json
from hf_galaxy.reports.run_record import FILE as RUN
from hf_galaxy.reports.run_record import RunRecord

MARK, PAGE = "demo.json", "index.html"  # what tells our folder from others, and what comes last
LABEL = "mock_class"
SHOWN = 9  # galaxies on the page


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Draw two mock surveys, pretrain a small model on the votes of one, finetune it on the classes of the other, and make a page that shows galaxies, learning curves, calibration and results. No galaxy in it is real."""

    out: OutputPath = Path("demo")
    """Folder to make; the page is index.html in it. An unfinished demo in it is taken up again."""
    quick: bool = False
    """Much smaller, in seconds: shows that everything works, not that it learns."""
    num_proc: int = len(available_cores())
    """Number of processes that draw galaxies."""


@dataclass(frozen=True)
class Extent:
    """How much the demo does.

    Attributes:
        galaxies: of the survey, and of the new survey.
        size: side of their pictures in pixels.
        pretrain, finetune: options of these commands.
        seconds: that each step took on two cores.
    """

    galaxies: tuple[int, int]
    size: int
    pretrain: str
    finetune: str
    seconds: tuple[float, ...]


FULL = Extent(
    (3000, 600),
    96,
    "--image-size 48 --batch-size 32 --epochs 10 --learning-rate 3e-3 --ema-galaxies 1500 --min-votes 10",
    "--epochs 15 --learning-rate 1e-3 --ema-galaxies 1200",
    (22, 4, 6, 35, 14, 4),
)
QUICK = Extent(
    (150, 100),
    48,
    "--image-size 32 --batch-size 16 --epochs 2 --learning-rate 3e-3 --min-votes 10",
    "--epochs 2 --learning-rate 1e-3",
    (3, 2, 2, 3, 2, 2),
)


@dataclass(frozen=True)
class Step:
    """A step.

    Attributes:
        words: what it does.
        seconds: that it took elsewhere.
        taken: whether an earlier command has finished it.
    """

    words: str
    seconds: float
    taken: bool
    work: Callable[[], object]


def main(settings: Demo) -> None:
    out = settings.out
    check_processes("--num-proc", settings.num_proc)
    check_folder(out, settings.quick)
    if (out / PAGE).exists():
        print(f"This demo is finished. For another one: --out FOLDER, or remove {out} first.")
    else:
        make(settings)
    print(out / PAGE)


def make(settings: Demo) -> None:
    """Make the folder, or what is still missing in it.

    Raises:
        InUse: another command makes it at this moment.
        BadInput: it cannot be written.
    """
    out = settings.out
    with ExitStack() as stack:
        try:
            stack.enter_context(only_writer_of(out))
            out.mkdir(exist_ok=True)
            remove_partial(out.glob(".*"))
            if not (out / MARK).exists():
                write_json(out / MARK, {"quick": settings.quick})
        except OSError as error:
            raise unwritable(f"--out {out}:", error) from error
        set_up()
        take([step for step in steps_of(settings, QUICK if settings.quick else FULL) if not step.taken])


def check_folder(out: Path, quick: bool) -> None:
    """Refuse a folder that is not one of ours, before anything in it is touched.

    Raises:
        BadInput: it holds other things, or a demo of another extent.
    """
    if out.exists() and not out.is_dir():
        raise BadInput(f"--out {out}: is a file; give a folder")
    if not out.exists() or all(
        file.name.startswith(".") for file in out.iterdir()
    ):  # of a demo killed at its first step
        return
    try:
        earlier = json.loads((out / MARK).read_text(encoding="utf-8"))["quick"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(f"--out {out}: is not empty and holds no demo; choose another folder") from None
    if earlier != quick:
        made = "with" if earlier else "without"
        raise BadInput(f"--out {out}: holds a demo that was made {made} --quick; remove it, or choose another folder")


def take(steps: list[Step]) -> None:
    """Take the steps, and say before each how long it and all that follows will take, by those before it."""
    started, done = time.monotonic(), 0.0
    for number, step in enumerate(steps, 1):
        pace = (time.monotonic() - started) / done if done else 1.0
        left = sum(each.seconds for each in steps[number - 1 :])
        here = f"about {duration(pace * step.seconds)}"
        rest = f"; {duration(pace * left)} to the end" if number < len(steps) else ""
        print(f"[{number}/{len(steps)}] {step.words}: {here}{rest}", flush=True)
        step.work()
        done += step.seconds


def duration(seconds: float) -> str:
    """To five seconds."""
    minutes, rest = divmod(max(5, 5 * round(seconds / 5)), 60)
    return " ".join([*([f"{minutes} min"] if minutes else []), *([f"{rest} s"] if rest else [])])


def set_up() -> None:
    """Leave out what libraries log and the bars that they show: of each step one line says what it does, and a bar of ours how far it is.

    And compute in one thread, if the user has not chosen: several help a model this small little, and on a busy machine they wait
    for each other. Libraries read all this when they are imported, which takes seconds, and happens after the first line.
    """
    logging.getLogger("hf_galaxy").setLevel(logging.WARNING)
    os.environ |= {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def steps_of(settings: Demo, extent: Extent) -> list[Step]:
    """All steps, in order."""
    out, processes = settings.out, settings.num_proc
    survey, new_survey, pretrained, finetuned = (
        out / name for name in ("survey", "new_survey", "pretrained", "finetuned")
    )
    many, few = extent.galaxies
    votes = f"--dataset {shlex.quote(str(survey))} --backbone test_resnet {extent.pretrain}"
    classes = (
        f"--start {shlex.quote(str(pretrained))} --dataset {shlex.quote(str(new_survey))} "
        f"--task classes --label {LABEL} {extent.finetune}"
    )
    work: list[tuple[str, bool, Callable[[], object]]] = [
        (
            f"drawing {many:,} galaxies, with votes of simulated volunteers",
            survey.exists(),
            lambda: draw(survey, many, 0, extent.size, processes),
        ),
        (
            f"drawing {few:,} galaxies of a new survey",
            new_survey.exists(),
            lambda: draw(new_survey, few, 1, extent.size, processes),
        ),
        ("checking the survey", (pretrained / RUN).exists(), lambda: check(survey)),
        ("pretraining test_resnet on the votes", is_finished(pretrained), lambda: train("pretrain", pretrain.command, votes, pretrained)),
        ("finetuning it on the classes of the new survey", is_finished(finetuned), lambda: train("finetune", finetune.command, classes, finetuned)),
        ("making the page", False, lambda: write_page(out, settings.quick)),
    ]  # fmt: skip
    return [
        Step(words, seconds, taken, does) for (words, taken, does), seconds in zip(work, extent.seconds, strict=True)
    ]


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a finished run."""
    return (folder / RUN).exists() and RunRecord.load(folder).finished


def draw(out: Path, galaxies: int, seed: int, size: int, processes: int) -> None:
    """Publish a mock survey."""
    from hf_galaxy.importing.plan import plan
    from hf_galaxy.publishing import publication
    from hf_galaxy.publishing.dataset_card import Prose
    from hf_galaxy.publishing.simulate import CARD, MockSurvey

    options = f"--galaxies {galaxies} --seed {seed} --size {size} --out {shlex.quote(str(out))}"
    survey = MockSurvey(galaxies, seed, size)
    command = f"hf-galaxy publish simulate {options}"
    publication.publish(survey, plan(survey), out, Prose.load(CARD), str(out), command, processes)


def check(survey: Path) -> None:
    """Check it.

    Raises:
        BadInput: it is not as it was published.
    """
    from hf_galaxy.publishing.check_published import check_published

    findings = check_published(str(survey), None, 0.01, len(available_cores()))
    if problems := [finding for finding in findings if finding.level == "problem"]:
        raise BadInput(f"{survey}: {problems[0].check}: {problems[0].text}; remove it, and give the same command again")


def train(name: str, command: Command, options: str, out: Path) -> None:
    """A training run as a command makes it, with a record that names this command."""
    from hf_galaxy.training.run import run_training

    options = f"{options} --out {shlex.quote(str(out))}"
    run_training(command.read(shlex.split(options)), f"hf-galaxy {name} {options}")


def write_page(out: Path, quick: bool) -> None:
    """Make the page of both runs."""
    from hf_galaxy.models.comparison import compared
    from hf_galaxy.models.start import load_run
    from hf_galaxy.reports.demo_page import demo_page

    model, pretrained = load_run(out / "pretrained")
    galaxies = compared(model, str(out / "survey"), LABEL, SHOWN)
    text = demo_page(str(out), pretrained, RunRecord.load(out / "finetuned"), galaxies, quick)
    with whole_file(out / PAGE) as partial:
        partial.write_text(text, encoding="utf-8")


command = Command(Demo, main)

if __name__ == "__main__":
    command()
