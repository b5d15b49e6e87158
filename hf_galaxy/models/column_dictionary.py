"""The data dictionary of a folder of predictions, _columns.md: what each column holds, and which model and data it is of."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from hf_galaxy.models.prediction_columns import Column
from hf_galaxy.safe_text import code, markdown

FILE = "_columns.md"  # readers of Parquet folders pass over names that begin so
TYPES = {
    pa.string(): "text",
    pa.bool_(): "true or false",
    pa.float16(): "float16",
    pa.float32(): "float32",
    pa.float64(): "float64",
}


def facts_of(about: Mapping[str, Any], galaxies: Mapping[str, int], unreadable: int) -> dict[str, str]:
    """What all columns have in common, in words.

    Args:
        about: in the metadata of the tables.
        galaxies: how many each dataset, or split of it, has.
        unreadable: number of the pictures that cannot be read.
    """
    size = f"{about['image_size']} pixels" + (
        f", the central {about['crop']:g} of a picture" if about["crop"] != 1 else ""
    )
    facts = {
        "Model": _listed(about["model"]),
        "SHA-256 of its weights": _listed(about["weights_sha256"]),
        "Backbone": _listed(about["backbone"]),
        "Pictures": size,
        "Precision": "float32" if about["precision"] == "no" else about["precision"],
    }
    if "runtime" in about:
        facts["Computed with"] = "ONNX Runtime, equal to torch to 1e-4 of the largest value of a column"
    if "views" in about:
        facts["Views of each galaxy"] = str(about["views"])
    if "calibration" in about:
        each = about["calibration"] if isinstance(about["calibration"], list) else [about["calibration"]]
        facts["Calibrated"] = "yes" if all(each) else "some of the models" if any(each) else "no"
    if "credible" in about:
        facts["Probability of the credible intervals"] = f"{about['credible']:g}"
    if "ood" in about:
        threshold, level = about["ood"]["threshold"], about["ood"]["level"]
        facts["Threshold of ood_score"] = (
            f"{threshold:g}, which at least {level:g} of galaxies like those of the training do not exceed"
        )
    facts |= {f"Galaxies of {name}": f"{count:,}" for name, count in galaxies.items()}
    if unreadable:
        facts["Pictures that cannot be read"] = f"{unreadable:,}, in unreadable.csv"
    return facts


def dictionary(facts: Mapping[str, str], columns: Sequence[Column]) -> str:
    """The page.

    Args:
        facts: as of `facts_of`.
        columns: of the tables, in their order.
    """
    lines = ["# Columns of these predictions", "", "| | |", "| --- | --- |"]
    lines += [f"| {markdown(name)} | {markdown(value)} |" for name, value in facts.items()]
    lines += ["", "| column | type | unit | meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| {code(c.name)} | {type_in_words(c.type)} | {c.unit} | {markdown(c.meaning)} |" for c in columns]
    return "\n".join([*lines, ""])


def type_in_words(kind: pa.DataType) -> str:
    """As people call a type: float32, text, 64 numbers of float16."""
    if pa.types.is_fixed_size_list(kind):
        return f"{kind.list_size} numbers of {type_in_words(kind.value_type)}"
    return TYPES.get(kind, str(kind))


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
