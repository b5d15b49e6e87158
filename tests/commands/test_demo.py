"""The demo, very small and by an installed package: a page that stands alone and tells what was measured; it goes on, and touches nothing strange."""

import html
import json
import os
import re
import shlex
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hf_galaxy.commands import demo, finetune, predict, publish
from hf_galaxy.errors import BadInput
from hf_galaxy.reports.demo_page import Answer, Galaxy, Question, demo_page
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.reports.text import number
from tests.forks import TIMEOUT, run_forked
from tests.installed import built_wheel, programs_with


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder of the programs of a fresh environment with the wheel."""
    _, wheel = built_wheel(tmp_path_factory.mktemp("wheel"))
    return programs_with(wheel, tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture(scope="module")
def run_installed(installed, tmp_path_factory):
    """Run a program of that environment; returns what it prints, and fails if it does."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}

    def run(program, *words):
        done = subprocess.run(
            [str(installed / program), *map(str, words)],
            cwd=tmp_path_factory.mktemp("elsewhere"),
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def made(run_installed, tmp_path_factory):
    """The folder of a demo that an installed package has made, and what its command printed."""
    out = tmp_path_factory.mktemp("demo") / "demo"
    return out, run_installed("hf-galaxy", "demo", "--quick", "--num-proc", 1, "--out", out)


@pytest.fixture(scope="module")
def page(made):
    return (made[0] / "index.html").read_text(encoding="utf-8")


def record_of(folder):
    return json.loads((folder / "run.json").read_text())


class Tags(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def words_of(page):
    """The text of a page, its tags and runs of spaces replaced by a space."""
    body = re.sub(r"(?s)<style>.*?</style>", "", page)
    return " ".join(html.unescape(re.sub("(<[^>]*>)+", " ", body)).split())


def test_an_installed_package_works_without_the_checkout(run_installed, installed, made):
    """It has made the demo, and its code is that of the wheel."""
    assert "\nTrain:\n  finetune     Finetune a pretrained backbone" in run_installed("hf-galaxy")
    where = run_installed("python", "-c", "import hf_galaxy; print(hf_galaxy.__file__)")
    assert Path(where).is_relative_to(installed.parent)
    assert "Nothing in it is real" in (made[0] / "survey/README.md").read_text()


def test_each_step_is_announced_and_the_path_comes_last(made):
    out, printed = made
    *lines, last = printed.splitlines()
    assert last == str(out / "index.html")
    assert [line.split()[0] for line in lines] == [f"[{n}/6]" for n in range(1, 7)]
    assert all(re.search(r": about \d+ (s|min)\b", line) for line in lines)


def test_the_page_needs_nothing_but_itself(page, made):
    tags = Tags(page).tags
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    assert len(pictures) == demo.SHOWN
    assert all(picture["src"].startswith("data:image/jpeg;base64,") for picture in pictures)
    assert all(len(picture["alt"]) > 20 for picture in pictures)
    assert all(attributes["aria-label"] for tag, attributes in tags if tag == "svg" and "role" in attributes)
    assert not {"script", "link", "iframe", "object", "source"} & {tag for tag, _ in tags}
    assert "url(" not in page
    assert "http" not in page
    links = {attributes["href"] for tag, attributes in tags if tag == "a"}
    assert links == {"survey/", "new_survey/", "pretrained/", "finetuned/"}
    assert all((made[0] / link).is_dir() for link in links)
    assert "Nothing on this page is real." in page


def test_the_numbers_are_those_of_the_runs(page, made):
    out, words = made[0], words_of(page)
    votes, classes = (record_of(out / run)["results"]["test"] for run in ("pretrained", "finetuned"))
    assert f"Loss on votes: {number(votes['loss']['model'])} nats per galaxy" in words
    assert f"{number(votes['loss']['baseline'])} for the same answer for every galaxy" in words
    accuracy = classes["accuracy"]
    assert f"{100 * accuracy['model']:.1f} % of {classes['galaxies']} test galaxies" in words
    assert f"{100 * accuracy['baseline']:.1f} % for always the commonest class" in words
    for question, figures in votes["questions"].items():
        assert f"{question} {figures['galaxies_asked']} " in words
    matrix = page.partition('<table class="confusion">')[2].partition("</table>")[0].partition("<tbody>")[2]
    rows = [re.findall(r"<td[^>]*>(\d+|·)</td>", row) for row in matrix.split("</tr>") if "<td" in row]
    assert [[int(cell.replace("·", "0")) for cell in row] for row in rows] == classes["confusion"]


def test_the_bars_are_the_votes_of_the_dataset(page, made):
    from datasets import load_dataset

    rows = {row["id_str"]: row for row in load_dataset(str(made[0] / "survey"), split="test").remove_columns("image")}
    shown = re.findall(r"<code>(mock-[\w-]+)</code>", page)
    assert len(set(shown)) == demo.SHOWN
    first = rows[shown[0]]
    suffix = "gz2" if first["dataset_name"] == "mock_gz2" else "dr5"
    votes = [first[f"smooth-or-featured-{suffix}_{answer}"] for answer in ("smooth", "featured-or-disk", "artifact")]
    card = page.partition("<article")[2].partition("</article>")[0]
    said = [int(share) for share in re.findall(r'<td class="said">(\d+)&nbsp;%', card)][:3]
    assert said == [round(100 * count / sum(votes)) for count in votes]
    assert f"<span>{sum(votes)} votes</span>" in card


def test_strange_names_stay_text(made):
    strange = "<script>'\"&"
    answers = [Answer(strange, 1, 1, None, None)]
    galaxy = Galaxy(strange, b"", strange, 20, strange, [Question(strange, 20, answers), Question(strange, 1, answers)])
    runs = [RunRecord.load(made[0] / run) for run in ("pretrained", "finetuned")]
    runs[1].dataset["classes"][0] = strange
    text = demo_page(strange, *runs, [galaxy])
    assert "script" not in {tag for tag, _ in Tags(text).tags}
    assert strange in next(attributes["alt"] for tag, attributes in Tags(text).tags if tag == "img")
    assert words_of(text).count(strange) > 10


def test_the_next_commands_are_commands(page):
    first, columns, *others = map(words_of, re.findall(r"<pre>.*?</pre>", page))
    assert json.loads(columns)["classes"].keys() == {"kind"}
    for line, command in zip([first, *others], (publish, finetune, predict), strict=True):
        program, name, *words = shlex.split(line)
        assert (program, name) == ("hf-galaxy", command.__name__.rpartition(".")[2])
        command.command.read(words)


def test_the_runs_record_commands_that_make_them_again(made):
    for run, kind in (("pretrained", "pretrain"), ("finetuned", "finetune")):
        assert record_of(made[0] / run)["command"].startswith(f"hf-galaxy {kind} --")
    published = json.loads((made[0] / "survey/statistics.json").read_text())["command"]
    assert published == f"hf-galaxy publish simulate --galaxies 150 --seed 0 --size 48 --out {made[0] / 'survey'}"


def test_again_it_only_says_where_the_page_is(made, capsys, page):
    demo.main(demo.Demo(out=made[0], quick=True))
    assert capsys.readouterr().out.splitlines()[-1] == str(made[0] / "index.html")
    assert (made[0] / "index.html").read_text(encoding="utf-8") == page


def test_what_is_missing_is_made_and_nothing_else(made, page):
    runs = [(made[0] / run / "model.safetensors").stat().st_mtime_ns for run in ("pretrained", "finetuned")]
    (made[0] / "index.html").unlink()
    done = run_forked("hf_galaxy/commands/demo.py", "--quick", "--out", made[0])
    printed = done.stdout
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in printed.splitlines()[:-1]] == ["[1/1]"]
    assert (made[0] / "index.html").read_text(encoding="utf-8") == page
    assert runs == [(made[0] / run / "model.safetensors").stat().st_mtime_ns for run in ("pretrained", "finetuned")]


def test_a_folder_of_something_else_is_refused_untouched(made, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(BadInput, match="is not empty and holds no demo"):
        demo.main(demo.Demo(out=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(BadInput, match="is a file"):
        demo.main(demo.Demo(out=tmp_path / "thesis.tex"))
    with pytest.raises(BadInput, match="made with --quick"):
        demo.main(demo.Demo(out=made[0]))


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "5 s"), (43, "45 s"), (59, "1 min"), (148, "2 min 30 s")])
def test_durations_are_rounded(seconds, words):
    assert demo.duration(seconds) == words
