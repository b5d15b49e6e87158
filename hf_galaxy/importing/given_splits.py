"""The splits that a dataset has already, by the names of ours."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hf_galaxy.errors import BadInput

USUAL = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


def usual_split(name: str) -> str | None:
    """The split of ours that a name stands for; None if it stands for none."""
    return USUAL.get(name.lower())


def given_splits(names: Iterable[str], dataset: str) -> dict[str, str] | None:
    """The split of ours for each split of a dataset. None: it has only one, which a hash of the names is to divide.

    Other names than `USUAL` stay. Training measures on a test split: where there is none beside train and validation, the
    validation split becomes the test split, and part of train the validation split.

    Args:
        dataset: its name, for messages.

    Raises:
        BadInput: two splits would have the same name.
    """
    names = list(names)
    if len(names) == 1:
        return None
    ours = {name: usual_split(name) or re.sub(r"\W+", "_", name) for name in names}
    if "test" not in ours.values() and {"train", "validation"} <= {*ours.values()}:
        ours = {name: "test" if split == "validation" else split for name, split in ours.items()}
    if len(set(ours.values())) < len(ours):
        twice = next(split for split in ours.values() if list(ours.values()).count(split) > 1)
        same = " and ".join(name for name in names if ours[name] == twice)
        raise BadInput(f"--dataset {dataset}: splits {same} both stand for {twice}; rename one of them")
    return ours


def described(given: dict[str, str] | None) -> str:
    """A phrase on where the splits come from."""
    if given is None:
        return "by a hash of the name"
    phrases = []
    for name, split in given.items():
        no_test = ", as there is no test split" if split == "test" and usual_split(name) == "validation" else ""
        phrases.append(name if name == split else f"{name} is {split}{no_test}")
    return f"as given ({'; '.join(phrases)})"
