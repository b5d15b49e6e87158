"""Blocks of code in pages of documentation, and what is run or checked of them.

A comment of HTML in a page, which readers do not see, tells what its blocks need:

    <!-- starts with: data/mock, runs/survey -->    in the page: its folder holds these before the first block
    <!-- not run: needs a GPU -->                   before a block: the reason why only its options are checked
    <!-- output -->                                 before a block of text: lines that the block before it prints

The blocks of a page are one story: they run in one folder, those of Python in one process.
"""

import contextlib
import importlib
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from hf_galaxy.sweeps.grid import axis_of
from tests.forks import run_forked

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
COMMANDS = {
    path.stem: f"hf_galaxy.commands.{path.stem}" for path in (ROOT / "hf_galaxy/commands").glob("[a-z]*.py") if path.stem != "main"
}  # fmt: skip

# What the stories run smaller than the text says, so that all of them take a minute: the option, and its value here. An option
# that a command of the text does not have is added.
SMALLER = {
    "publish simulate": {"--galaxies": "60", "--size": "48", "--num-proc": "1"},
    "pretrain": {"--backbone": "test_convnext", "--image-size": "32", "--epochs": "1", "--workers": "0"},
    "finetune": {"--image-size": "32", "--epochs": "1", "--workers": "0"},
    "familiarity": {"--level": "0.8"},  # which 12 validation galaxies determine
}
SMALLER_CALLS = {"finetune": {"image_size": 32, "epochs": 1, "workers": 0}}  # keyword arguments of hf_galaxy.finetune


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the number of its first line, and the reason if it is not run."""

    language: str
    text: str
    line: int
    not_run: str | None = None
    is_output: bool = False


FENCE = re.compile(r"^( *)```([a-z]*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!-- (not run: (.+?)|output) -->\s*\Z", re.DOTALL)


def blocks_of(markdown: str) -> list[Block]:
    """The fenced blocks of a page."""
    found = []
    for match in FENCE.finditer(markdown):
        before = markdown[: match.start()]
        comment = COMMENT.search(before)
        text = "\n".join(line.removeprefix(match[1]) for line in match[3].splitlines())
        not_run, is_output = (comment[2], comment[1] == "output") if comment else (None, False)
        found.append(Block(match[2], text, before.count("\n") + 2, not_run, is_output))
    return found


def blocks_of_notebook(notebook: dict[str, Any]) -> list[Block]:
    """The cells of a notebook, without that which installs: lines of shell (!) and of Python, numbered from the first of the cell."""
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code" or "install" in cell["metadata"].get("tags", ()):
            continue
        text = "".join(cell["source"])
        for is_shell, lines in itertools.groupby(text.splitlines(), lambda line: line.startswith("!")):
            part = "\n".join(line.removeprefix("!") if is_shell else line for line in lines)
            found.append(Block("bash" if is_shell else "python", part, 1))
    return found


def starts_with(markdown: str) -> list[str]:
    """What the folder of a page holds before its first block."""
    return re.findall(r"[^\s,]+", " ".join(re.findall(r"<!-- starts with: (.*?) -->", markdown, re.DOTALL)))


def lines_of(shell: str) -> Iterator[str]:
    """The commands of a block of shell: those of ours each on one line and without comments, a here-document as it is."""
    lines = iter(shell.splitlines())
    for line in lines:
        if here := re.search(r"<<'(\w+)'", line):
            document = [line, *itertools.takewhile(lambda each, end=here[1]: each != end, lines), here[1]]
            yield "\n".join(document)
            continue
        while line.endswith("\\"):
            line = line[:-1] + next(lines)
        if words := shlex.split(line, comments=True):
            yield shlex.join(words) if "#" in line else line


def ours(line: str) -> list[str] | None:
    """The words after `hf-galaxy`, if a line of shell starts a command of ours in any way; None for others."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if words[:1] == ["hf-galaxy"]:
        return words[1:]
    if words[:1] not in (["python"], ["accelerate"], ["torchrun"]):
        return None
    for place, word in enumerate(words):
        if re.fullmatch(r"scripts/\w+\.py", word):
            return [name_of(word), *words[place + 1 :]]
        if word.startswith("hf_galaxy.commands."):
            return [word.removeprefix("hf_galaxy.commands."), *words[place + 1 :]]
    return None


def name_of(script: str) -> str:
    """The subcommand that a file in scripts/ starts."""
    text = (ROOT / script).read_text()
    return re.search(r"from hf_galaxy\.commands\.(\w+) import|from hf_galaxy\.commands import (\w+)", text)[1]


# What both need


def start(words: list[str]) -> None:
    """Run `hf-galaxy` with these words in this process."""
    from hf_galaxy.commands.main import main

    with mock.patch.object(sys, "argv", ["hf-galaxy", *words]):
        main()


def child(function: Callable[[], object], output: Path, stdout: Path | None = None) -> int:
    """Call a function in a fork, with its output in a file, or what it prints in another; returns its exit status."""
    if (process := os.fork()) == 0:
        os._exit(_status_of(function, output, stdout))
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _into(output: str | Path, stdout: Path | None = None) -> None:
    """Append what this process prints, and what it logs, to files."""
    for number, path in ((1, stdout or output), (2, output)):
        with open(path, "a") as file:
            os.dup2(file.fileno(), number)


def _status_of(function: Callable[[], object], output: Path, stdout: Path | None = None) -> int:
    _into(output, stdout)
    status: Any = 0
    try:
        function()
    except SystemExit as stopped:
        status = stopped.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    return status or 0


# Options: whether commands know them


def read_options(words: list[str]) -> None:
    """Read the options of a command, which does nothing; a launcher's command and the first run of a sweep are read as well."""
    if words[0] not in COMMANDS:
        return start(words)  # --help
    command = importlib.import_module(COMMANDS[words[0]]).command
    words, rest = words[1:], []
    if command.rest_at:
        end = command.rest_at(words)
        words, rest = words[:end], words[end:]
    values = command.read(words)
    if rest[:1] == ["--"]:
        axes = [axis_of(axis)[0] for axis in values.vary]
        varied = [word for axis in axes for option, value in axis.items() for word in (f"--{option}", value)]
        rest = [*(ours(shlex.join(["python", *rest[1:]])) or rest[1:]), *varied, "--out", "run"]
    if rest:
        read_options(rest)


def check_options(line: str) -> str:
    """What is wrong with the options of a command of ours; empty if nothing is."""
    with tempfile.TemporaryDirectory() as folder:
        status = child(lambda: read_options(ours(line)), output := Path(folder, "output"))
        return output.read_text() if status else ""


# Stories: whether blocks work


def smaller(words: list[str]) -> list[str]:
    """A command with the options of `SMALLER`."""
    words = list(words)
    if words[0] == "launch":  # as one process of the launcher; tests/commands/test_launch.py starts several
        from hf_galaxy.commands.launch import command_name

        words = words[1 + command_name(words[1:]) :]
    if words[0] == "sweep":
        inner = words.index("--") + 1
        return [*words[:inner], *smaller(words[inner:])]
    for name, options in SMALLER.items():
        if words[: len(name.split())] != name.split():
            continue
        for option, value in options.items():
            if option in words:
                words[words.index(option) + 1] = value
            else:
                words += [option, value]
    return words


class Story:
    """Runs blocks one after another in the present folder.

    Commands are forks of this process, in which nothing else happens; Python runs in another fork.
    """

    def __init__(self, page: str, output: Path) -> None:
        self.page, self.output = page, output
        self.pipe, other = Pipe()
        if (python := os.fork()) == 0:
            self.pipe.close()
            os._exit(_status_of(lambda: _run_python(other), output))
        self.python = python
        other.close()

    def end(self) -> None:
        """End the process of Python."""
        self.pipe.close()
        os.waitpid(self.python, 0)

    def run(self, block: Block) -> str:
        """What is wrong with a block; empty if nothing is."""
        if block.language == "python":
            # Its lines have the numbers of the page, for the traceback.
            self.pipe.send(("\n" * (block.line - 1) + block.text, self.page, str(self.output)))
            return self.pipe.recv()
        if block.language in ("bash", "sh"):
            for line in lines_of(block.text):
                words = ours(line)
                if words is None:
                    with open(self.output, "a") as file:
                        status = subprocess.run(["bash", "-c", line], stdout=file, stderr=file, check=False).returncode
                else:
                    words, target = (words[:-2], Path(words[-1])) if words[-2:-1] == [">"] else (words, None)
                    status = child(partial(start, smaller(words)), self.output, target)
                if status:
                    return f"{line}: exit status {status}"
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "yaml":
            yaml.safe_load(block.text)
        elif block.language == "json":
            json.loads(block.text)
        return ""


def _run_python(pipe: Any) -> None:
    """Execute the blocks that come through a pipe, with common names, and answer each with its traceback."""
    import hf_galaxy

    names: dict[str, Any] = {"__name__": "__main__"}
    sys.path.insert(0, "")
    with contextlib.ExitStack() as stack:
        for name, options in SMALLER_CALLS.items():
            call = getattr(hf_galaxy, name)
            stack.enter_context(mock.patch.object(hf_galaxy, name, _with(call, options)))
        with contextlib.suppress(EOFError):
            while True:
                code, page, output = pipe.recv()
                _into(output)
                try:
                    exec(compile(code, page, "exec"), names)
                    sys.stdout.flush()
                    pipe.send("")
                except BaseException:
                    pipe.send(traceback.format_exc())


def _with(call: Callable[..., object], options: dict[str, Any]) -> Callable[..., object]:
    """A call that takes these options instead of those that it is given."""
    return lambda *arguments, **given: call(*arguments, **given | options)


def is_told(expected: str, printed: str) -> str:
    """The first line of a block of output that was not printed.

    Any number stands for any other, an interval may be missing, and `...` stands for lines.
    """

    def pattern(line: str) -> str:
        return " ".join(re.sub(r"[-+]?\d[\d,.:e+-]*", "0", re.sub(r"\s\[[^]]*\]", "", line)).split())

    lines = {pattern(line) for line in printed.splitlines()}
    missing = [line for line in expected.splitlines() if line.strip() not in ("", "...") and pattern(line) not in lines]
    return missing[0] if missing else ""


def tell(file: str) -> None:
    """Run the story in a file of JSON: `page`, `folder`, and its `blocks`; ends with what is wrong."""
    story = json.loads(Path(file).read_text())
    os.chdir(story["folder"])
    os.environ["MPLBACKEND"] = "agg"
    output = Path(story["folder"], ".output")
    output.touch()
    # Drawing the figures of cards would take longer than the trainings.
    with mock.patch("hf_galaxy.reports.run_figures.figures", return_value={}):
        teller = Story(story["page"], output)
        for block in (Block(**each) for each in story["blocks"]):
            if block.is_output:
                if wrong := is_told(block.text, output.read_text()):
                    sys.exit(f"{story['page']}:{block.line}: was not printed: {wrong}\n{output.read_text()}")
                continue
            output.write_text("")
            if wrong := teller.run(block):
                sys.exit(f"{story['page']}:{block.line}: {wrong}\n{output.read_text()[-5000:]}")
        teller.end()


def check(file: str) -> None:
    """Check the options of the lines of a file of JSON: page and line -> command; ends with all that is wrong."""
    wrong = [f"{place}: {line}\n{said}" for place, line in json.loads(Path(file).read_text()) if (said := check_options(line))]  # fmt: skip
    if wrong:
        sys.exit("\n".join(wrong))


def story_of(page: Path, folder: Path) -> dict[str, Any]:
    """What `tell` reads."""
    is_notebook = page.suffix == ".ipynb"
    blocks = blocks_of_notebook(json.loads(page.read_text())) if is_notebook else blocks_of(page.read_text())
    blocks = [asdict(block) for block in blocks if not block.not_run]
    return {
        "page": str(page.relative_to(ROOT) if page.is_relative_to(ROOT) else page),
        "folder": str(folder),
        "blocks": blocks,
    }


def run_story(page: Path, folder: Path) -> None:
    """Run the blocks of a page or a notebook in a folder.

    Raises:
        AssertionError: one of them failed, or did not print what it should.
    """
    file = folder / ".story.json"
    file.write_text(json.dumps(story_of(page, folder)))
    done = run_forked(__file__, "tell", file)
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    {"tell": tell, "check": check}[sys.argv[1]](sys.argv[2])
