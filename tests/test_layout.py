"""The rooms of the package and what each may import, so that anyone can read it from the bottom up."""

import ast
import re
from graphlib import TopologicalSorter

from tests.conftest import ROOT

PACKAGE = ROOT / "hf_galaxy"
# Room -> the rooms that it may import; "" is the root, the vocabulary of all.
ALLOWED = {
    "": set(),
    "data": {""},
    "evaluation": {""},
    "reports": {"", "evaluation"},
    "importing": {"", "data"},
    "cutouts": {"", "data", "importing"},
    "models": {"", "data", "importing", "reports"},
    "publishing": {"", "data", "importing", "reports", "models"},
    "training": {"", "data", "importing", "evaluation", "reports", "models"},
    "sweeps": {"", "reports", "training"},
    "scaling": {"", "evaluation", "reports", "training"},
    "downstream": {"", "data", "importing", "evaluation", "reports", "models", "training", "sweeps", "scaling"},
    "commands": {"", "data", "importing", "cutouts", "evaluation", "reports", "models", "publishing", "training", "sweeps", "scaling", "downstream"},
    "calls": {"", "data", "importing", "cutouts", "evaluation", "reports", "models", "publishing", "training", "sweeps", "scaling", "downstream", "commands"},
}  # fmt: skip
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imports_of(path):
    """The modules of ours that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hf_galaxy":
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in FILES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "hf_galaxy")


def room_of(module):
    return module.split(".")[1] if module.count(".") >= 2 or (PACKAGE / module.split(".")[-1]).is_dir() else ""


GRAPH = {module: set(imports_of(path)) for module, path in FILES.items()}


def test_rooms_import_only_what_they_may():
    assert {room_of(module) for module in FILES if module != "hf_galaxy"} == ALLOWED.keys()
    for module, imported in GRAPH.items():
        if module != "hf_galaxy":  # the face of the package hands on what users import
            rooms = {room_of(name) for name in imported} - {room_of(module)}
            assert rooms <= ALLOWED[room_of(module)], f"{module} imports {sorted(imported)}"


def test_the_documentation_has_the_same_table():
    text = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)/` \| .* \| (.*) \|$", text, re.MULTILINE)
    named = {room: set(allowed.split(", ")) for room, allowed in rows if not allowed.startswith("all")}
    assert {room for room, _ in rows} == ALLOWED.keys() - {""}
    assert named == {room: {name or "root" for name in ALLOWED[room]} for room in named}


def test_no_modules_import_each_other_in_a_circle():
    TopologicalSorter({module: imported - {"hf_galaxy"} for module, imported in GRAPH.items()}).prepare()  # CycleError


def test_commands_are_imported_by_nothing_but_scripts_calls_and_one_another():
    importing = {
        room_of(module) for module, imported in GRAPH.items() for name in imported if room_of(name) == "commands"
    }
    assert importing <= {"commands", "calls"}


def test_calls_are_imported_by_nothing_but_the_face_of_the_package():
    importing = {module for module, imported in GRAPH.items() for name in imported if room_of(name) == "calls"}
    assert {module for module in importing if room_of(module) != "calls"} == {"hf_galaxy"}


def test_scripts_only_start_a_command():
    for script in (ROOT / "scripts").glob("*.py"):
        module = ast.parse(script.read_text())
        assert [name.split(".")[:2] for name in imports_of(script)] == [["hf_galaxy", "commands"]]
        assert len(module.body) == 3, f"{script.name}: docstring, import, and a call under __main__"
