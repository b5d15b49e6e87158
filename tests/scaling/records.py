"""Run records of a sweep whose losses follow a known joint law, for tests of studies."""

import numpy as np

from hf_galaxy.reports.run_record import RunRecord

BACKBONES = {"resnet10t": 4_925_053, "test_resnet": 373_173, "mobilenetv3_small_050": 573_349}
SIZES = (300, 1_000, 3_000, 10_000, 30_000, 100_000)
GALAXIES = 5_000  # of the test split


def law_of(i: int) -> dict[str, float]:
    """Question i: 0.4 to 0.9 nats are left at the end, and all else falls to it."""
    return {"E": 0.4 + 0.05 * (i % 11), "A": 20.0, "alpha": 0.35, "B": 8.0, "beta": 0.45 + 0.02 * (i % 7)}


def loss_of(law: dict[str, float], parameters: float, galaxies: float) -> float:
    """L(N, D) = E + A N^-alpha + B D^-beta."""
    return law["E"] + law["A"] * parameters ** -law["alpha"] + law["B"] * galaxies ** -law["beta"]


def voted_records(
    questions=tuple(f"question-{i}" for i in range(12)), backbones=BACKBONES, sizes=SIZES, seeds=(1, 2, 3),
    starts=(None,), noise=0.01, replicates=40,
) -> dict[str, RunRecord]:  # fmt: skip
    """Runs on votes, one for each backbone, size, seed and start; with a start, 0.8 of what falls is left."""
    rng = np.random.default_rng(0)
    # Other test galaxies are easier or harder for all runs alike.
    luck = {name: 0.01 * rng.standard_normal(replicates) for name in (*questions, "all")}
    records = {}
    for start in starts:
        for seed in seeds:
            of_seed = np.exp(noise / 2 * rng.standard_normal())
            for backbone, parameters in backbones.items():
                for size in sizes:
                    losses = {}
                    for i, name in enumerate(questions):
                        law = law_of(i)
                        falls = loss_of(law, parameters, size) - law["E"]
                        scatter = of_seed * np.exp(noise * rng.standard_normal())
                        losses[name] = (law["E"] + falls * (0.8 if start else 1)) * scatter
                    results = _votes(losses, luck)
                    name = f"{start}/{backbone}/{size}/{seed}"
                    records[name] = _record(backbone, parameters, size, seed, start, results)
    return records


def classed_records(
    backbones=BACKBONES, sizes=SIZES, seeds=(1, 2, 3), noise=0.01, replicates=40
) -> dict[str, RunRecord]:
    """Runs on classes: the loss follows the law of question 0, and a quarter of it is the error."""
    rng = np.random.default_rng(1)
    luck = 0.01 * rng.standard_normal(replicates)
    records = {}
    for seed in seeds:
        for backbone, parameters in backbones.items():
            for size in sizes:
                loss = loss_of(law_of(0), parameters, size) * np.exp(noise * rng.standard_normal())
                error = loss / 4 * np.exp(noise * rng.standard_normal())
                results = {
                    "galaxies": GALAXIES,
                    "loss": {"model": loss, "baseline": 1.6},
                    "accuracy": {"model": 1 - error, "baseline": 0.3},
                    "bootstrap": {
                        "loss": {"model": (loss * (1 + luck)).tolist()},
                        "accuracy": {"model": (1 - error * (1 + luck)).tolist()},
                    },
                }
                records[f"{backbone}/{size}/{seed}"] = _record(backbone, parameters, size, seed, None, results)
    return records


SATURATED = 0.35  # nats, of each question: what is above it follows the law


def _votes(losses, luck):
    def nll(value, again, questions=1):
        least = SATURATED * questions
        figures = {"model": value + least, "baseline": 1.65 * questions + least, "saturated": least}
        again = {"model": (value * (1 + again) + least).tolist(), "saturated": [least] * len(again)}
        return figures, again

    total = nll(sum(losses.values()), luck["all"], len(losses))
    each = {name: nll(loss, luck[name]) for name, loss in losses.items()}
    return {
        "galaxies": GALAXIES,
        "loss": total[0],
        "questions": {
            name: {
                "nll": each[name][0],
                "rmse": {"model": loss / 5, "baseline": 0.4},
                "galaxies_asked": GALAXIES,
                "galaxies_with_enough_votes": GALAXIES // 2,
            }
            for name, loss in losses.items()
        },
        "bootstrap": {
            "loss": total[1],
            "questions": {
                name: {"nll": each[name][1], "rmse": {"model": (loss / 5 * (1 + luck[name])).tolist()}}
                for name, loss in losses.items()
            },
        },
    }


def _record(backbone, parameters, size, seed, start, results):
    return RunRecord(
        command="",
        settings={"seed": seed, "task": "votes" if "questions" in results else "classes"},
        dataset={"name": "made-up", "splits": {"train": size}},
        model={
            "backbone": backbone,
            "start": start,
            "parameters": {"backbone": parameters - 100, "head": 100},
            "flops": 10 * parameters,
        },
        training={
            "best_epoch": 10.0,
            "seconds": size / 100,
            "convergence": {"gain": 0.005, "least": 0.0, "converged": True, "lengths": []},
        },
        results={"test": results},
        finished=True,
    )
