"""Run folders, studies and cards of anybody: what is in them is shown as it is, or refused with the name of the file."""

import io
import json

import pyarrow.parquet as pq
from hypothesis import example
from hypothesis import strategies as st

import hf_galaxy
from hf_galaxy.data.card_facts import DatasetFacts
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.errors import BadInput
from hf_galaxy.models.configuration import GalaxyConfig
from hf_galaxy.models.familiarity import FILE as FAMILIARITY
from hf_galaxy.models.familiarity import Familiarity
from hf_galaxy.models.pretrained import PublishedWeights
from hf_galaxy.models.start import load_model
from hf_galaxy.publishing.dataset_card import Prose
from hf_galaxy.reports import records_file
from hf_galaxy.reports.card_data import eval_results
from hf_galaxy.reports.model_card import model_card
from hf_galaxy.reports.run_record import FILE, RunRecord, reading
from hf_galaxy.scaling.points import load_points, points_in, points_of
from hf_galaxy.training.settings import settings_of
from tests.conftest import ROOT
from tests.fuzz.cases import Refused, answer, fuzz, memory_for, own_folder
from tests.fuzz.mutations import ODD, changed, damaged

SMALL = ROOT / "spaces_app/models/small"
FOLDER = own_folder()


def shortened(value):
    """A record with a few elements of each list and mapping, so that most changes are of what tells something."""
    if isinstance(value, dict):
        few = list(value)[:2] if len(value) > 12 and "epochs" not in value else value
        return {key: shortened(value[key]) for key in few}
    return [shortened(each) for each in value[:3]] if isinstance(value, list) else value


RECORD = {name: shortened(field) for name, field in json.loads((SMALL / FILE).read_text()).items()}
CONFIG = json.loads((SMALL / "config.json").read_text())
CONFIG["tree"]["questions"] = CONFIG["tree"]["questions"][:3]


def card(record):
    with reading(FOLDER / FILE):
        return model_card(record) + str(eval_results(record))


# What is made of a record, and how a refusal of it names the run.
DOORS = {
    "card": (card, str),
    "settings": (lambda record: str(settings_of(record)), lambda folder: "settings of the run"),
    "sentence": (lambda record: repr(hf_galaxy.Run(FOLDER)), str),
    "page": (lambda record: hf_galaxy.Run(FOLDER)._repr_html_(), str),
    "results": (lambda record: str(dict(hf_galaxy.Run(FOLDER).results)), str),
    "study": (lambda record: str(points_of({"this run": record})["run"]), lambda folder: None),
}


def check(content, door):
    (FOLDER / FILE).write_bytes(content)
    record = answer(RunRecord.load, FOLDER, place=str(FOLDER))
    if isinstance(record, Refused):
        assert isinstance(answer(hf_galaxy.Run, FOLDER, place=str(FOLDER)), Refused)
        return
    assert RunRecord.of(json.loads(content)) == record
    make, place = DOORS[door]
    assert isinstance(answer(make, record, place=place(FOLDER)), Refused | str)


def test_the_record_that_is_changed_is_whole():
    record = RunRecord.of(RECORD)
    assert len(model_card(record)) > 1000
    assert len(points_of({"a": record})) > 3


@fuzz(changed(RECORD, changes=3), st.sampled_from(sorted(DOORS)))
@example([], "card")
@example(RECORD | {"settings": []}, "card")
@example(RECORD | {"finished": "yes"}, "card")
@example(RECORD | {"model": RECORD["model"] | {"backbone": []}}, "study")
@example(RECORD | {"settings": {}}, "card")
@example(RECORD | {"settings": RECORD["settings"] | {"task": None}}, "card")
@example(RECORD | {"settings": RECORD["settings"] | {"task": []}}, "study")
def test_a_record_is_shown_or_refused_with_its_folder(record, door):
    check(json.dumps(record).encode(), door)


@fuzz(damaged(st.just(json.dumps({**RECORD, "results": {}, "baseline": {}, "training": {}}).encode())))
@example(b"[" * 100_000)
@example(b"\xff\xfe")
@example(b'{"command": "' + b"1" * 5000 + b'", "settings": ' + b"9" * 5000 + b"}")
def test_bytes_that_are_no_record_are_refused_with_their_folder(content):
    check(content, "card")


PARTS = ("dataset", "model", "settings", "training", "results")


@fuzz(st.sampled_from(PARTS), st.sampled_from(sorted(DOORS)), st.data())
def test_a_record_with_a_changed_part_is_shown_or_refused_with_its_folder(part, door, data):
    check(json.dumps(RECORD | {part: data.draw(changed(RECORD[part]))}).encode(), door)


@fuzz(changed(CONFIG, changes=2))
@example(CONFIG | {"tree": {"name": "x", "questions": [{"name": 1}]}})
def test_a_configuration_names_the_outputs_or_is_refused(fields):
    def read():
        try:
            config = GalaxyConfig.from_dict(fields)
        except BadInput:
            raise
        except Exception as error:  # what transformers raises of its own fields; load_model makes one line of all
            raise BadInput("of transformers") from error
        return config.decision_tree, config.framing, config.file_rendering, config.channels

    config = answer(read)
    if not isinstance(config, Refused):
        assert all(isinstance(column, str) for column in config[0].columns)
        assert isinstance(config[2], Rendering)


@fuzz(st.data(), share=0.1)
def test_a_run_is_loaded_or_refused_in_one_line(data):
    """Its configuration and its weights, with all that transformers and timm say of them."""
    if not (FOLDER / "saved/config.json").exists():
        config = GalaxyConfig(backbone="test_byobnet", tree="gz_rings", image_size=32)
        hf_galaxy.GalaxyForVotes(config).save_pretrained(FOLDER / "saved")
        for name in ("config.json", "model.safetensors"):
            (FOLDER / f"saved/{name}").rename(FOLDER / f"valid.{name}")
    config = valid = json.loads((FOLDER / "valid.config.json").read_bytes())
    weights = (FOLDER / "valid.model.safetensors").read_bytes()
    if data.draw(st.booleans()):
        config = data.draw(changed(config))
    else:
        weights = data.draw(damaged(st.just(weights)))
    (FOLDER / "saved/config.json").write_text(json.dumps(config))
    (FOLDER / "saved/model.safetensors").write_bytes(weights)
    model = answer(load_model, FOLDER / "saved", place=str(FOLDER))
    if not isinstance(model, Refused):
        assert model.columns == ["ring_yes", "ring_no"] or config["tree"] != valid["tree"]


TIMM = {"architecture": "test_byobnet", "num_classes": 0, "pretrained_cfg": {"input_size": [3, 160, 160], "mean": [0.5] * 3, "std": [0.5] * 3}, "model_args": {}}  # fmt: skip


@fuzz(changed(TIMM))
@example(TIMM | {"pretrained_cfg": {"mean": []}})
@example([])
def test_a_configuration_of_timm_is_read_or_refused_with_its_folder(fields):
    (FOLDER / "config.json").write_text(json.dumps(fields))
    weights = answer(PublishedWeights, f"local-dir:{FOLDER}", place=str(FOLDER))
    if not isinstance(weights, Refused):
        assert len(weights.architecture.mean) == len(weights.architecture.std) == 3


@fuzz(st.data())
def test_a_file_of_records_is_read_or_refused_with_its_name(data):
    file = FOLDER / records_file.FILE
    if not (FOLDER / "valid.parquet").exists():
        records_file.write_records(FOLDER / "valid.parquet", {"a": RECORD, "b": {**RECORD, "command": "other"}})
        assert records_file.read_records(FOLDER / "valid.parquet")["a"] == RECORD
    content = (FOLDER / "valid.parquet").read_bytes()
    file.write_bytes(data.draw(damaged(st.just(content))))
    records_file._read.cache_clear()
    with memory_for(2**29):
        answer(records_file.read_records, file, place=str(file))
        answer(points_in, file)
        answer(load_points, file, place=str(file))
    file.unlink()


@fuzz(
    st.dictionaries(
        st.sampled_from(["name", "settings", "results", "other"]),
        st.lists(ODD.map(json.dumps) | st.sampled_from(["", "{", "nul", None]), min_size=2, max_size=2),
        min_size=1,
    )
)
def test_a_parquet_file_with_other_cells_is_no_file_of_records(columns):
    import pyarrow as pa

    file = FOLDER / records_file.FILE
    pq.write_table(pa.table({name: pa.array(cells, pa.string()) for name, cells in columns.items()}), file)
    records_file._read.cache_clear()
    answer(records_file.read_records, file, place=str(file))
    answer(points_in, FOLDER)
    answer(load_points, file, place=str(file))
    file.unlink()


CARD = """---
pretty_name: A survey
license: mit
rendering:
  stretch: asinh
  size: 64
  rgb: [2, 1, 0]
tags: [a, b]
---
# A survey

| what | which |
| --- | --- |
| telescope | big |

## Known problems

None.

```bibtex
@a{b}
```
"""


@fuzz(
    damaged(st.just(CARD.encode()))
    | changed({"stretch": "asinh", "size": 64, "rgb": [2, 1, 0], "low": 0.25}).map(
        lambda stated: CARD.replace(
            "stretch: asinh\n  size: 64\n  rgb: [2, 1, 0]", f"x: 1\nrendering: {json.dumps(stated)}"
        ).encode()
    )
)
def test_a_card_states_facts_or_nothing(content):
    (FOLDER / "README.md").write_bytes(content)
    facts = DatasetFacts.by(str(FOLDER))
    assert isinstance(facts.title, str)
    assert facts.license is None or isinstance(facts.license, str)
    assert facts.rendering is None or Rendering.of(facts.rendering)
    prose = answer(Prose.load, FOLDER / "README.md", place="--card")
    assert isinstance(prose, Refused) or isinstance(prose.title, str)


@fuzz(damaged(st.just(io.BytesIO((SMALL / FAMILIARITY).read_bytes()[:4000] + bytes(200)).getvalue())))
def test_a_file_of_familiarity_is_refused_with_its_name(content):
    (FOLDER / FAMILIARITY).write_bytes(content)
    (FOLDER / "model.safetensors").write_bytes(b"")
    assert isinstance(answer(Familiarity.load, FOLDER, place=str(FOLDER)), Refused)
