"""What more galaxies to pretrain with bring: the power law of downstream losses in them, over starts that differ in nothing else."""

import numpy as np

from hf_galaxy.benchmark_draws import LEAST, error_of, estimate_of, is_main, mean_and_draws

FEWEST = 3  # starts of a series: a line through two always fits


def series_of(about: dict) -> dict[str, dict[str, int]]:
    """Starts that differ only in how many galaxies of their last dataset they have learnt from.

    Args:
        about: as `benchmark_results.read_about` gives it.

    Returns:
        For each series, called like its start with the most: start -> galaxies, in rising order.
    """
    alike = {}
    for name, start in about["starts"].items():
        if start["pretraining"]:
            last, *earlier = start["pretraining"]
            before = tuple((each["dataset"], each["galaxies"]) for each in earlier)
            alike.setdefault((start["began"], before, last["dataset"]), {})[name] = last["galaxies"]
    rising = [dict(sorted(each.items(), key=lambda pair: pair[1])) for each in alike.values()]
    return {[*each][-1]: each for each in rising if len(set(each.values())) >= FEWEST}


def amounts_of(kinds: dict[tuple, dict], about: dict) -> tuple[list[dict], dict[tuple, np.ndarray]]:
    """The exponent a of loss = c x galaxies^-a for each series, task, mode and share of the labels, and its draws.

    By least squares on logarithms, each start counting alike. All starts of a series learn downstream from the same galaxies
    and are tested on the same, so its interval is that of the differences between them; it holds nothing of how another
    pretraining with as many galaxies would differ.

    Args:
        kinds: (measure, task, start, mode, share) -> seed -> row of `benchmark_results.points_of`.
        about: as `benchmark_results.read_about` gives it.

    Returns:
        Rows, and (task, series, mode, share) -> draws.
    """
    found, drawn = [], {}
    main = {key[1:]: part for key, part in kinds.items() if is_main(part)}
    for series, members in series_of(about).items():
        for task, mode, share in dict.fromkeys((task, mode, share) for task, _, mode, share in main):
            there = {name: galaxies for name, galaxies in members.items() if (task, name, mode, share) in main}
            if len(set(there.values())) < FEWEST:
                continue
            parts = [main[task, name, mode, share] for name in there]
            means, draws, seeds = mean_and_draws(parts, "amounts", series, task, mode, share)
            if not seeds:
                continue
            logs = np.log([*there.values()])
            weights = (logs - logs.mean()) / np.square(logs - logs.mean()).sum()
            drawn[task, series, mode, share] = -weights @ np.log(np.maximum(draws, LEAST))
            estimate = estimate_of(-weights @ np.log(np.maximum(means, LEAST)), drawn[task, series, mode, share])
            found.append({
                "task": task, "series": series, "mode": mode, "share": share, "measure": about["tasks"][task]["measure"],
                "main": True, "starts": [*there], "galaxies": [*there.values()], "seeds": seeds, **estimate,
                "error": error_of(estimate, lambda value: -value),
            })  # fmt: skip
    return found, drawn
