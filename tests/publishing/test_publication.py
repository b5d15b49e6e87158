"""A published folder agrees with its data, and its card is written again for the Hub from statistics.json and --card alone."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hf_galaxy import load_tree
from hf_galaxy.errors import BadInput
from hf_galaxy.files import Share
from hf_galaxy.importing import writer
from hf_galaxy.importing.counts import Statistics
from hf_galaxy.importing.plan import plan
from hf_galaxy.publishing.dataset_card import Prose
from hf_galaxy.publishing.publication import left_out, load_statistics, publish, publish_part, rename
from tests.galaxies import Rows

COMMAND = "python publish_dataset.py"
# The text mentions the folder, too, in the very words of the template.
PROSE = Prose(
    title="Rings", license="mit",
    text='Rings.\n\n## Where it comes from\n\nNot from load_dataset("data/rings") or `--dataset data/rings --out x`.',
)  # fmt: skip


class Gaps(Rows):
    """Every tenth picture cannot be read."""

    def row(self, i):
        return None if i % 10 == 0 else super().row(i)


@pytest.fixture
def folder(tmp_path):
    source = Gaps(60, campaigns=["gz_rings" if i % 3 else "gz2" for i in range(60)])
    planned = plan(source)
    statistics = publish(source, planned, tmp_path / "rings", PROSE, "data/rings", COMMAND)
    assert left_out(planned, statistics) == 6
    return tmp_path / "rings"


def test_statistics_are_those_of_the_files_read_back(folder):
    counts = Statistics(Rows.features, Rows.tree, Rows.values)
    for file in sorted((folder / "data").rglob("*.parquet")):
        counts.add(file.name.split("-")[0], pq.read_table(file))
    statistics = load_statistics(folder)
    counted = counts.to_dict()
    assert json.dumps({name: statistics[name] for name in counted}) == json.dumps(counted), "in the same order, too"
    assert sum(statistics["galaxies"].values()) == 54
    assert "6 galaxies whose picture cannot be read are left out." in statistics["notes"]
    assert (statistics["name"], statistics["command"], statistics["license"]) == ("data/rings", COMMAND, "mit")


def test_for_the_hub_the_name_changes_and_nothing_else(folder):
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    card = (folder / "README.md").read_text()
    assert rename(folder, "lab/rings", COMMAND, PROSE, load_tree("gz_rings"))
    changed = {file.name for file, content in before.items() if file.read_bytes() != content}
    assert changed == {"README.md", "statistics.json"}
    assert json.loads(before[folder / "statistics.json"]) | {"name": "lab/rings"} == load_statistics(folder)
    old, new = card.splitlines(), (folder / "README.md").read_text().splitlines()
    lines = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    assert all(b == a.replace("data/rings", "lab/rings") for a, b in lines)
    assert [a.split("data/rings")[0] for a, _ in lines] == [
        'galaxies = load_dataset("', "hf-galaxy pretrain --dataset "
    ]  # fmt: skip
    assert PROSE.section("Where it comes from") in new, "the authors' text stays"
    assert rename(folder, "lab/rings", COMMAND, PROSE, load_tree("gz_rings"))


def test_a_card_that_a_person_edited_stays(folder):
    card = folder / "README.md"
    card.write_text(edited := card.read_text() + "\nA remark.\n")
    assert not rename(folder, "lab/rings", COMMAND, PROSE, load_tree("gz_rings"))
    assert card.read_text() == edited
    assert load_statistics(folder)["name"] == "data/rings"


def test_the_folder_of_another_command_is_refused(folder):
    before = (folder / "README.md").read_bytes()
    with pytest.raises(BadInput, match=r"published by another command \(python publish_dataset\.py\)"):
        rename(folder, "lab/rings", "python other.py", PROSE, load_tree("gz_rings"))
    assert (folder / "README.md").read_bytes() == before


def test_parts_that_several_machines_write_are_finished_by_one(folder, tmp_path, monkeypatch):
    source = Gaps(60, campaigns=["gz_rings" if i % 3 else "gz2" for i in range(60)])
    planned, out = plan(source), tmp_path / "again"
    galaxies = [publish_part(source, planned, out, Share.parse(f"{k}/4")) for k in (2, 1, 4)]
    assert sum(galaxies) < 54, "the third part is still missing"
    assert not out.exists()
    with pytest.raises(BadInput, match="holds the finished files of an interrupted command with other"):
        publish_part(Gaps(61), plan(Gaps(61)), out, Share.parse("1/4"))
    write = writer.write_shards

    def meanwhile(*arguments):
        """While a part is written, another part may be, but nobody finishes the dataset."""
        with pytest.raises(BadInput, match="another command writes a part of it at this moment"):
            publish(source, planned, out, PROSE, "data/rings", COMMAND)
        with pytest.raises(BadInput, match="another command writes this part of it at this moment"):
            publish_part(source, planned, out, Share.parse("3/4"))
        return write(*arguments)

    monkeypatch.setattr(writer, "write_shards", meanwhile)
    galaxies.append(publish_part(source, planned, out, Share.parse("3/4")))
    assert sum(galaxies) == 54
    monkeypatch.setattr(writer, "write_shards", write)
    monkeypatch.setattr(source, "batch", None)  # all rows are made
    publish(source, planned, out, PROSE, "data/rings", COMMAND)
    for file in (file for file in folder.rglob("*") if file.is_file()):
        assert (out / file.relative_to(folder)).read_bytes() == file.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again", "rings"], "no lock is left"


def test_an_interrupted_publication_is_resumed(folder, tmp_path):
    expected = {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    def again(source: Rows, out: Path):
        publish(source, plan(source), out, PROSE, "data/rings", COMMAND)

    class Stops(Gaps):
        def row(self, i):
            if i in plan(self).shards[-1].rows:
                raise KeyboardInterrupt
            return super().row(i)

    campaigns = ["gz_rings" if i % 3 else "gz2" for i in range(60)]
    with pytest.raises(KeyboardInterrupt):
        again(Stops(60, campaigns), tmp_path / "again")
    assert not (tmp_path / "again").exists()
    again(Gaps(60, campaigns), tmp_path / "again")
    written = {
        f.relative_to(tmp_path / "again"): f.read_bytes() for f in (tmp_path / "again").rglob("*") if f.is_file()
    }
    assert written == expected
