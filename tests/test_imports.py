"""What is imported when: the package and the help of its commands at once, transformers with our models in whatever order."""

import json
import os
import subprocess
import sys

import pytest
import torch

from hf_galaxy import GalaxyConfig, GalaxyForVotes
from hf_galaxy.commands.main import COMMANDS
from tests.conftest import ROOT, SHARED
from tests.forks import run_code

# Each of these takes from half a second to several seconds of a core.
HEAVY = {
    "accelerate", "datasets", "galsim", "matplotlib", "pandas", "scipy.stats", "sklearn", "timm", "torch", "transformers",
}  # fmt: skip


def output_of(code, *arguments):
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    own = os.environ | {"HF_HOME": str(SHARED)}  # models for ONNX Runtime are exported once for all tests
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_package_alone_imports_nothing_heavy():
    code = "import json, sys, hf_galaxy, hf_galaxy.scaling, hf_galaxy.sweeps.scheduler; hf_galaxy.load_tree('gz2'); print(json.dumps(list(sys.modules)))"
    assert not HEAVY & set(json.loads(output_of(code)))


HELP = """
import contextlib, importlib, io, json, sys
imported = {}
for script, module in json.loads(sys.argv[1]).items():
    sys.argv = [script, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        importlib.import_module(module).command()
    assert "--out" in printed.getvalue() or "options" in printed.getvalue(), printed.getvalue()
    imported[script] = list(sys.modules)
print(json.dumps(imported))
"""


def test_the_help_of_no_command_imports_what_does_the_work():
    names = COMMANDS
    for name, imported in json.loads(
        output_of(HELP, json.dumps({n: f"hf_galaxy.commands.{n}" for n in names}))
    ).items():
        assert not HEAVY & set(imported), name


def test_all_public_names_are_there():
    import hf_galaxy

    assert set(hf_galaxy.__all__) <= set(dir(hf_galaxy))
    assert all(getattr(hf_galaxy, name).__name__ == name for name in hf_galaxy.__all__)
    with pytest.raises(AttributeError, match="no attribute 'GalaxyForNothing'"):
        hf_galaxy.GalaxyForNothing  # noqa: B018


MODEL = "assert type(AutoModel.from_pretrained(folder)).__name__ == 'GalaxyForVotes'"
CONFIG = "assert type(AutoConfig.from_pretrained(folder)).__module__ == 'hf_galaxy.models.configuration'"
PIPELINE = "assert type(pipeline('galaxy-morphology', folder)).__name__ == 'GalaxyMorphologyPipeline'"
ORDERS = [
    f"import hf_galaxy; from transformers import AutoModel; {MODEL}",
    f"from transformers import AutoModel, pipeline; import hf_galaxy; {MODEL}; {PIPELINE}",
    f"import transformers, hf_galaxy; AutoConfig = transformers.AutoConfig; {CONFIG}",
    f"import hf_galaxy; from transformers import pipeline; {PIPELINE}",
    f"from hf_galaxy import GalaxyMorphologyPipeline; from transformers import AutoConfig, pipeline; {CONFIG}; {PIPELINE}",
    # These import the Auto classes while modules that our models need are themselves not complete.
    f"import hf_galaxy, transformers.modeling_layers; from transformers import AutoModel; {MODEL}",
    f"import hf_galaxy; from transformers import PreTrainedModel, AutoConfig; {CONFIG}",
]
# Each order in a process of its own, which starts with what takes long and knows of neither.
SERVER = """
import json, os, sys, traceback
import timm, torchvision
folder = sys.argv[1]
for order in json.loads(sys.argv[2]):
    assert not {"transformers", "hf_galaxy"} & sys.modules.keys()
    if (child := os.fork()) == 0:
        try:
            exec(order)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(order)
"""


def test_transformers_knows_the_models_in_whatever_order_both_are_imported(tmp_path):
    torch.manual_seed(0)
    GalaxyForVotes(GalaxyConfig(backbone="test_convnext", tree="gz_rings", image_size=32)).save_pretrained(tmp_path)
    done = run_code(SERVER, tmp_path, json.dumps(ORDERS))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
