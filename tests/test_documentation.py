"""The documentation is true: its blocks of code run, its options exist, its links lead somewhere.

How a page says what its blocks need, and what is run smaller here, is in `documentation`.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from filelock import FileLock

from tests.conftest import ROOT, SHARED
from tests.documentation import COMMANDS, PAGES, blocks_of, lines_of, ours, run_story, starts_with
from tests.forks import run_forked

HERE = ROOT / "tests/documentation.py"
LANGUAGES = {"bash", "sh", "python", "toml", "yaml", "json", "text"}
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
STORIES = [name for name, text in TEXTS.items() if any(not block.not_run for block in blocks_of(text))]


@pytest.fixture(scope="module")
def prepared(mock_dataset):
    """A folder with what pages start with: a survey, a run that learnt its votes, and pictures."""
    folder = SHARED / "documentation"
    with FileLock(SHARED / "documentation.lock"):
        if not folder.exists():
            (folder / "data").mkdir(parents=True)
            (folder / "data/mock").symlink_to(mock_dataset)
            (folder / "pictures").symlink_to(ROOT / "spaces_app/examples")
            (folder / "page.md").write_text(
                "```bash\nhf-galaxy pretrain --dataset data/mock --batch-size 16 --min-votes 3 --out runs/survey\n```\n"
            )
            run_story(folder / "page.md", folder)
    return folder


@pytest.mark.parametrize("name", STORIES)
def test_the_blocks_of_a_page_run(name, prepared, tmp_path):
    for needed in starts_with(TEXTS[name]):
        source = next(folder / needed for folder in (prepared, ROOT) if (folder / needed).exists())
        place = tmp_path / needed
        place.parent.mkdir(parents=True, exist_ok=True)
        if needed.startswith("runs/"):  # commands write into them
            shutil.copytree(source, place)
        else:
            place.symlink_to(source)
    run_story(ROOT / name, tmp_path)


def test_commands_that_are_not_run_have_options_that_exist(tmp_path):
    lines = [
        (f"{name}:{block.line}", line)
        for name, text in TEXTS.items()
        for block in blocks_of(text)
        if block.language in ("bash", "sh") and block.not_run
        for line in lines_of(block.text)
        if ours(line)
    ]
    assert len(lines) > 10
    (tmp_path / "lines.json").write_text(json.dumps(lines))
    done = run_forked(HERE, "check", tmp_path / "lines.json")
    assert done.returncode == 0, done.stdout + done.stderr


def test_options_in_the_prose_exist():
    known = known_options()
    for name, text in TEXTS.items():
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for option in re.findall(r"`[^`\n]*`", prose):
            for each in re.findall(r"(?<![\w-])--[a-z][a-z0-9_-]*", option):
                assert each in known, f"{name}: {each} in {option}"


def known_options():
    """All options of our commands, and those of other programs that the documentation names."""
    files = [*(ROOT / "hf_galaxy/commands").glob("*.py"), *(ROOT / "hf_galaxy/training").glob("*.py")]
    code = "\n".join(
        path.read_text()
        for path in (
            *files,
            *(ROOT / "hf_galaxy").glob("*.py"),
            ROOT / "hf_galaxy/data/pictures.py",
            ROOT / "hf_galaxy/importing/reading.py",
        )
    )
    fields = {field.replace("_", "-") for field in re.findall(r"^    ([a-z_]+): ", code, re.MULTILINE)}
    others = set(re.findall(r"--[a-z-]+", (ROOT / "hf_galaxy/command_line.py").read_text())) | {"--help", "--sdk"}
    return {f"--{field}" for field in fields} | {f"--no-{field}" for field in fields} | others


def test_links_lead_to_files_of_the_repository_as_on_github():
    others = [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
    for page in (*PAGES, *others):
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if not link.startswith(("http", "#")):
                assert (page.parent / link.partition("#")[0]).exists(), f"{page.name}: {link}"


def test_the_reference_has_every_command():
    text = TEXTS["docs/reference/commands.md"]
    assert [
        name
        for name in COMMANDS
        if f"options of {name} " not in text and f"`{name}`" not in text and f"## {name}" not in text
    ] == []


def test_every_block_has_a_language_that_can_be_read_and_a_reason_if_it_is_not_run():
    for name, text in TEXTS.items():
        assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(blocks_of(text)), name
        for block in blocks_of(text):
            assert block.language in LANGUAGES, f"{name}:{block.line}"
            if block.language == "python":
                ast.parse(block.text)
            assert block.not_run is None or len(block.not_run.split()) > 1, f"{name}:{block.line}"


def test_the_site_is_built_without_a_broken_link_and_asks_no_other_server(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?([^\"' >]+)", text)
        loaded += re.findall(
            r"<link[^>]*rel=[\"']?(?:stylesheet|preconnect|icon|preload)[^>]*href=[\"']?([^\"' >]+)", text
        )
        assert not [address for address in loaded if address.startswith(("http", "//"))], page
