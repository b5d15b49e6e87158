"""The records of a study come back from their file equal to the last bit, and equal records give equal files."""

import dataclasses
import json
import os
import time

import pandas as pd
import pytest

from hf_galaxy.errors import BadInput
from hf_galaxy.reports.records_file import FILE, holds_records, in_order, read_records, recorded, write_records
from hf_galaxy.reports.run_record import RunRecord

RUN = RunRecord(
    command="pretrain.py --title 'größer'",
    settings={"seed": 1, "subset": 0.1, "start": None, "crop": 1e-300},
    training={"losses": [[1, 0.1 + 0.2], [2, 1 / 3]], "seconds": 1e22},
    results={"test": {"loss": {"model": 2.5e-17}, "bootstrap": {"loss": {"model": [0.30000000000000004, None]}}}},
    finished=True,
)
CELL = {"task": "gz1", "share": 1 / 3, "grid": {"0.1": None}, "figures": {"error": {"replicates": [1e-9] * 200}}}


def some_records():
    runs = {f"runs/seed={seed}": dataclasses.asdict(RUN) | {"settings": {"seed": seed}} for seed in (10, 9)}
    return runs | {"cells/gz1/full,share=1.json": CELL, "cells/gz1/full,share=1-4.json": CELL | {"share": 0.25}}


def test_records_come_back_equal_with_the_fields_that_each_has(tmp_path):
    write_records(tmp_path / FILE, some_records())
    again = read_records(tmp_path / FILE)
    assert again == some_records()
    assert json.dumps(again, sort_keys=True) == json.dumps(some_records(), sort_keys=True), "also 1 and 1.0 differ"
    assert list(again) == [
        "cells/gz1/full,share=1-4.json",
        "cells/gz1/full,share=1.json",
        "runs/seed=10",
        "runs/seed=9",
    ]
    assert RunRecord(**again["runs/seed=9"]) == dataclasses.replace(RUN, settings={"seed": 9})


def test_other_programs_read_it(tmp_path):
    write_records(tmp_path / FILE, some_records())
    table = pd.read_parquet(tmp_path / FILE).set_index("name")
    assert json.loads(table.loc["runs/seed=9", "training"]) == RUN.training
    assert pd.isna(table.loc["runs/seed=9", "grid"])
    assert table.loc["runs/seed=9", "card"] == "null", "a field without a value is not a missing field"


def test_equal_records_give_equal_bytes_in_whatever_order_they_come(tmp_path):
    records = some_records()
    write_records(tmp_path / "a.parquet", records)
    write_records(tmp_path / "b.parquet", dict(reversed(records.items())))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_what_distant_records_have_in_common_is_written_once(tmp_path):
    """Gzip, which sees 32 kB, would write it 50 times."""
    numbers = [i * 0.618 % 1 for i in range(5_000)]  # 90 kB as text
    write_records(tmp_path / FILE, {str(i): {"baseline": numbers} for i in range(50)})
    assert (tmp_path / FILE).stat().st_size < 2 * len(json.dumps(numbers))


def test_names_are_in_the_order_of_paths():
    names = ["b/c", "a-b/c", "a/z", "a"]
    assert in_order(names) == ["a", "a/z", "a-b/c", "b/c"]


def test_a_run_is_recorded_in_a_file_above_its_folder(tmp_path):
    assert recorded(tmp_path / "study/runs/seed=9") is None
    write_records(tmp_path / "study" / FILE, some_records())
    assert recorded(tmp_path / "study/runs/seed=9")["settings"] == {"seed": 9}
    assert recorded(tmp_path / "study/runs/seed=8") is None
    assert recorded(tmp_path / "study/other/seed=9") is None
    write_records(tmp_path / "study/runs" / FILE, {"seed=8": {"settings": {"seed": 8}}})
    assert recorded(tmp_path / "study/runs/seed=8")["settings"] == {"seed": 8}
    assert recorded(tmp_path / "study/runs/seed=9")["settings"] == {"seed": 9}


def test_a_file_that_changed_is_read_again(tmp_path):
    write_records(tmp_path / FILE, some_records())
    assert len(read_records(tmp_path / FILE)) == 4
    write_records(tmp_path / FILE, {})
    os.utime(tmp_path / FILE, (time.time() + 1,) * 2)
    assert read_records(tmp_path / FILE) == {}


def test_a_file_that_holds_no_records_is_refused(tmp_path):
    assert read_records(tmp_path / FILE) == {}, "there is none"
    (tmp_path / FILE).write_text("not Parquet")
    assert not holds_records(tmp_path / FILE)
    with pytest.raises(BadInput, match=r"records\.parquet: cannot be read as records of a study"):
        read_records(tmp_path / FILE)
    pd.DataFrame({"loss": [1.0]}).to_parquet(tmp_path / "points.parquet")
    assert not holds_records(tmp_path / "points.parquet")
    with pytest.raises(BadInput, match=r"points\.parquet: cannot be read as records of a study"):
        read_records(tmp_path / "points.parquet")
    pd.DataFrame({"name": ["a"], "settings": ["{"]}).to_parquet(tmp_path / "broken.parquet")
    with pytest.raises(BadInput, match=r"broken\.parquet: cannot be read as records of a study"):
        read_records(tmp_path / "broken.parquet")
    pd.DataFrame({"name": ["a", None]}).to_parquet(tmp_path / "unnamed.parquet")
    with pytest.raises(BadInput, match=r"unnamed\.parquet: .*a name is no text"):
        read_records(tmp_path / "unnamed.parquet")
