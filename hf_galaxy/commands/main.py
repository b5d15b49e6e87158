"""`hf-galaxy COMMAND ...`: every command of the package under one name.

The overview is made of the docstrings of the commands' modules, which are not imported for it: it appears at once.
"""

import ast
import difflib
import importlib
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

GROUPS = {
    "Look around": ("demo",),
    "Data": ("cutouts", "publish", "check", "combine", "overlap"),
    "Train": ("finetune", "pretrain", "sweep", "launch"),
    "Use a model": ("predict", "embed", "evaluate", "calibrate", "familiarity", "export", "push", "space"),
    "Measure": ("prevalence", "degrade", "fit", "budget", "benchmark", "pack"),
}
COMMANDS = tuple(name for names in GROUPS.values() for name in names)
SHELLS = ("bash", "zsh", "tcsh")


def main() -> None:
    """What `hf-galaxy` does: hand on to a command, or show them all."""
    words = sys.argv[1:]
    if not words or words[0] in ("--help", "-h", "help"):
        print(overview())
    elif words[0] == "--version":
        from importlib.metadata import version

        print(f"hf_galaxy {version('hf_galaxy')}")
    elif words[0] == "--tyro-print-completion":
        print_completion(words)
    elif words[0] in COMMANDS:
        module_of(words[0]).command(words[1:], f"hf-galaxy {words[0]}")
    else:
        near = difflib.get_close_matches(words[0], COMMANDS, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        print(f"error: {words[0]}: there is no such command{meant} (hf-galaxy --help lists them)", file=sys.stderr)
        sys.exit(2)


def module_of(name: str) -> Any:
    """The module of a command."""
    return importlib.import_module(f"hf_galaxy.commands.{name}")


def overview() -> str:
    """Every command, by what a person wants, with a sentence and an example."""
    lines = ["hf-galaxy: galaxy images, votes and models with the tools of Hugging Face", ""]
    for group, names in GROUPS.items():
        lines.append(f"{group}:")
        for name in names:
            sentence, example = described(name)
            lines += [*textwrap.wrap(sentence, 108, initial_indent=f"  {name:<12} ", subsequent_indent=" " * 15)]
            lines += textwrap.wrap(example, 108, initial_indent=" " * 15, subsequent_indent=" " * 19)
        lines.append("")
    lines += [
        "hf-galaxy COMMAND --help explains the options of a command; each of them may be in a file (--config FILE).",
        "Tab completion: hf-galaxy --tyro-print-completion bash > ~/.local/share/bash-completion/completions/hf-galaxy (zsh, tcsh too).",
    ]
    return "\n".join(lines)


def described(name: str) -> tuple[str, str]:
    """The first sentence of a command's docstring, and its first example."""
    text = ast.get_docstring(ast.parse(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8"))) or ""
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    sentence = " ".join(lines[: lines.index("") if "" in lines else None])
    return sentence, next(" ".join(line.split()) for line in lines if line.startswith(f"hf-galaxy {name} "))


def print_completion(words: list[str]) -> None:
    """Print a script with which a shell completes commands and options; it reads the options of all commands, which takes seconds."""
    import tyro

    if len(words) != 2 or words[1] not in SHELLS:
        sys.exit(f"error: --tyro-print-completion: name a shell: {', '.join(SHELLS)}")
    app = tyro.extras.SubcommandApp()
    for name in COMMANDS:
        settings = module_of(name).command.settings
        app.command(_with_options(settings), name=name)
    app.cli(prog="hf-galaxy", args=words)


def _with_options(settings: Any) -> Any:
    """A function that has the settings as its options."""
    import tyro

    if isinstance(settings, type):
        return settings

    def function(settings: Any) -> None: ...

    function.__annotations__ = {"settings": Annotated[settings, tyro.conf.arg(name="")], "return": None}
    return function


if __name__ == "__main__":
    main()
