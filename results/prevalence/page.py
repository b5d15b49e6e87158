"""Does the interval hold? A page of how often `hf-galaxy prevalence` held the hidden truth of real galaxies.

    python results/prevalence/page.py

Writes README.md (with the words of page.md.jinja) from records.parquet.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from scipy.stats import beta

from hf_galaxy.files import whole_file
from hf_galaxy.reports.records_file import FILE, read_records
from hf_galaxy.reports.text import render, table

HERE = Path(__file__).parent
SETS = {
    "rings": "rings (DECaLS)", "gz2_classes": "gz2_classes (SDSS)", "euclid_mergers": "Euclid Q1", "gz1": "Galaxy Zoo 1 (SDSS)",
    "ceers": "CEERS (JWST)",
}  # fmt: skip
ORDER = (
    "rings", "spiral", "edge-on", "mergers of Euclid", "cigar-shaped", "mergers of Galaxy Zoo 1", "votes for a bar", "votes for a merger",
    "edge-on, useless", "edge-on, inverted",
)  # fmt: skip


def held_of(times: int, draws: int) -> str:
    """A share in per cent, with Jeffreys' interval of 90 %."""
    low, high = beta.ppf([0.05, 0.95], times + 0.5, draws - times + 0.5)
    return f"{percent(times / draws)} [{100 * low:.0f}, {100 * high:.0f}]"


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def samples_of(records: Mapping[str, dict]) -> Iterator[tuple[str, dict, dict]]:
    for name in ORDER:
        for sample in records[name]["samples"]:
            yield name, records[name]["about"], sample


def surveys(records: Mapping[str, dict]) -> str:
    rows = []
    for name in ORDER:
        about = records[name]["about"]
        good = f"AUC {about['auc']:.3f}" if about["auc"] is not None else f"correlation {about['correlation']:.2f}"
        rows.append([
            name, SETS[about["dataset"]], f"{about['galaxies']:,}", about["trained"], good, percent(about["truth"], 1), percent(about["counting"], 1),
        ])  # fmt: skip
    return table(["counted", "set", "galaxies", "learnt from", "predictions", "truth", "counting predictions"], rows)


def coverage(records: Mapping[str, dict]) -> str:
    rows = []
    for name, about, sample in samples_of(records):
        rows.append([
            name, percent(about["truth"], 1), sample["labelled"], *(held_of(sample[who], sample["draws"]) for who in ("held", "held_alone", "held_usual")),
            f"{sample['width'] / sample['width_alone']:.2f}", f"{sample['effective_labels']:,.0f}", percent(sample["counting_excluded"] / sample["draws"]),
        ])  # fmt: skip
    columns = [
        "counted", "truth", "labels", "interval holds", "labels alone", "usual interval", "width / alone", "worth labels", "counting excluded",
    ]  # fmt: skip
    return table(columns, rows)


def page_of(records: Mapping[str, dict]) -> str:
    """README.md"""
    samples = list(samples_of(records))
    held, usual = ([sample[who] / sample["draws"] for *_, sample in samples] for who in ("held", "held_usual"))
    ratios = [s["width"] / s["width_alone"] for name, _, s in samples if name == "edge-on, useless"]
    # The standard error of a mean over draws, from the width of an interval of 90 %.
    errors = [
        abs(s["mean_error"]) / (s["width"] / 3.29 / s["draws"] ** 0.5) for _, _, s in samples if s["labelled"] >= 100
    ]
    return render(
        HERE / "page.md.jinja", surveys=surveys(records), coverage=coverage(records), least=percent(min(held)), most=percent(max(held)),
        mean=percent(np.mean(held), 1), usual_least=percent(min(usual)), usual_mean=percent(np.mean(usual), 1), cases=len(samples),
        useless=f"{min(ratios):.2f} to {max(ratios):.2f}", error=f"{max(errors):.1f}", errors=len(errors),
    )  # fmt: skip


def main() -> None:
    with whole_file(HERE / "README.md") as partial:
        partial.write_bytes(page_of(read_records(HERE / FILE)).encode())


if __name__ == "__main__":
    main()
