"""The arrows between modules go down only, so that anyone can read the package from the bottom up."""

import ast

from tests.conftest import ROOT

# Module -> the modules of ours that it may import.
BELOW = {
    "errors": set(),
    "cores": set(),
    "atomic": {"errors"},
    "decision_tree": {"errors"},
    "run_record": {"errors", "atomic"},
    "views": {"errors"},
    "backbones": {"errors"},
    "optimizers": {"errors"},
    "progress": set(),
    "bootstrap": set(),
    "law_fitting": {"bootstrap"},
    "scaling": {"errors", "bootstrap", "law_fitting"},
    "study": {"errors", "atomic", "bootstrap", "law_fitting", "run_record", "scaling", "settings"},
    "study_page": {"cards", "scaling", "study"},
    "pictures": {"errors"},
    "figures": {"decision_tree"},
    "charts": {"figures"},
    "run_figures": {"charts", "run_record"},
    "card_data": {"run_record"},
    "law_figures": {"errors", "charts", "scaling", "study"},
    "vote_matrix": set(),
    "record_batch": set(),
    "schema": {"errors", "decision_tree", "vote_matrix"},
    "fractions": {"decision_tree"},
    "duplicates": set(),
    "statistics": {"decision_tree", "schema"},
    "mock_pictures": set(),
    "simulate": {"decision_tree", "mock_pictures", "schema"},
    "column_map": {"errors", "decision_tree"},
    "catalogues": {"errors", "column_map", "decision_tree", "fractions", "pictures", "schema"},
    "plan": {"errors", "duplicates", "schema"},
    "publish": {"atomic", "plan", "progress", "schema"},
    "hub": {"errors", "atomic", "publish"},
    "dataset_card": {"errors", "decision_tree", "figures", "publish"},
    "croissant": {"dataset_card", "publish"},
    "streaming": {"errors", "vote_matrix"},
    "copied": {"errors", "vote_matrix", "record_batch"},
    "check": {"errors", "dataset_card", "decision_tree", "duplicates", "progress", "schema", "statistics", "streaming"},
    "combine": {"errors", "decision_tree", "schema", "streaming"},
    "losses": {"decision_tree"},
    "data": {"errors", "bootstrap", "copied", "decision_tree", "schema", "streaming", "views"},
    "overlap": {"errors", "data", "duplicates", "progress"},
    "sequence": {"errors", "cores", "data", "streaming", "views"},
    "folds": {"errors", "data", "schema"},
    "subsets": {"errors", "data", "decision_tree", "schema"},
    "mixture": {"errors", "data", "sequence", "views"},
    "constant_votes": {"decision_tree", "losses"},
    "metrics": {"bootstrap", "constant_votes", "decision_tree", "losses"},
    "class_metrics": {"bootstrap", "metrics"},
    "value_metrics": {"bootstrap", "losses"},
    "remote_code": set(),
    "model": {"errors", "decision_tree", "backbones", "losses", "remote_code", "views"},
    "pretrained": {"errors", "backbones"},
    "start": {"errors", "backbones", "model", "pretrained"},
    "morphology": {"errors", "decision_tree"},
    "pipeline": {"errors", "morphology", "pictures", "views"},
    "predictions": {"errors", "atomic", "data", "model", "pictures", "progress", "streaming", "views"},
    "recipe": {"errors"},
    "processes": {"errors", "cores"},
    "checkpoints": {"errors", "atomic", "processes"},
    "train": {"errors", "checkpoints", "progress", "recipe"},
    "finetuning": {"errors", "backbones", "model", "start"},
    "features": {"atomic", "bootstrap", "data", "decision_tree", "model", "progress", "sequence", "views"},
    "cards": {"card_data", "run_figures", "run_record"},
    "command_line": {"errors"},
    "settings": {"errors", "finetuning", "folds", "mixture", "optimizers", "recipe", "views"},
    "sources": {"errors", "data", "dataset_card", "decision_tree", "folds", "settings", "subsets"},
    "run_folder": {"errors", "atomic", "card_data", "cards", "checkpoints", "run_figures", "run_record", "settings"},
    "estimate": {"checkpoints", "recipe", "sequence", "settings", "sources"},
    "experiment": {
        "errors",
        "backbones",
        "class_metrics",
        "constant_votes",
        "cards",
        "data",
        "decision_tree",
        "estimate",
        "features",
        "finetuning",
        "metrics",
        "mixture",
        "model",
        "optimizers",
        "pretrained",
        "processes",
        "run_folder",
        "run_record",
        "sequence",
        "settings",
        "sources",
        "start",
        "train",
        "value_metrics",
        "views",
    },
    "export": {
        "errors",
        "atomic",
        "backbones",
        "card_data",
        "cards",
        "mock_pictures",
        "model",
        "run_record",
        "simulate",
        "views",
    },
    "fast_model": {"errors", "backbones", "experiment", "export", "losses", "model", "pretrained", "views"},
    "looks": set(),
    "familiarity": {"errors", "atomic", "pretrained"},
    "saliency": {"fast_model"},
    "space": {"errors", "atomic", "experiment", "hub"},
    "grid": {"errors", "checkpoints", "run_record"},
    "attempt": {"errors", "grid"},
    "sweep": {"errors", "atomic", "attempt", "cores", "grid", "run_record"},
    "cost": {"errors", "attempt", "estimate", "grid", "sweep"},
    "label_budget": {"errors", "bootstrap", "cards", "scaling", "study"},
    "tasks": {"errors", "data", "settings"},
    "probe": {"features", "model"},
    "benchmark_draws": {"bootstrap", "scaling"},
    "benchmark_labels": {"benchmark_draws", "bootstrap", "scaling"},
    "benchmark_amounts": {"benchmark_draws"},
    "benchmark_results": {"errors", "benchmark_amounts", "benchmark_draws", "benchmark_labels", "bootstrap"},
    "benchmark_figures": {"benchmark_results", "charts", "law_figures"},
    "benchmark_page": {
        "errors",
        "atomic",
        "benchmark_amounts",
        "benchmark_figures",
        "benchmark_labels",
        "benchmark_results",
        "cards",
        "study",
    },
    "benchmark": {
        "errors",
        "atomic",
        "benchmark_results",
        "data",
        "grid",
        "probe",
        "run_record",
        "settings",
        "sources",
        "tasks",
    },
    "benchmark_cell": {
        "atomic",
        "benchmark",
        "data",
        "experiment",
        "features",
        "grid",
        "probe",
        "processes",
        "run_record",
        "sources",
        "start",
    },
    "__init__": {"decision_tree", "model", "pipeline"},
}


def imported(path):
    """The names of our modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hf_galaxy":
            yield from [node.module.split(".")[1]] if "." in node.module else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("hf_galaxy."))


def test_modules_import_only_what_is_below_them():
    modules = {path.stem: set(imported(path)) for path in (ROOT / "hf_galaxy").glob("*.py")}
    assert modules.keys() == BELOW.keys()
    for module, names in modules.items():
        assert names & BELOW.keys() <= BELOW[module], f"{module} may not import {names - BELOW[module]}"


def test_scripts_do_not_import_each_other():
    for script in (ROOT / "scripts").glob("*.py"):
        text = script.read_text()
        for command in ("python scripts/", "launch scripts/", "-- scripts/"):
            text = text.replace(command, "")
        assert "scripts" not in text
