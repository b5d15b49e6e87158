"""What forks of `forks.SERVER` would otherwise each do for the first time: import libraries, and find fonts."""

import gc
import importlib

import yaml
from matplotlib.lines import Line2D

from hf_galaxy.reports import charts
from hf_galaxy.targets import TARGETS

yaml.SafeLoader = yaml.CSafeLoader  # the same parser in C: that in Python takes longer for a card than its dataset does

for _name in (
    "hf_galaxy.training.run", "hf_galaxy.commands.publish", "hf_galaxy.scaling.figures", "accelerate", "datasets", "galsim",
    "sklearn.metrics", "transformers.models.auto.modeling_auto", "transformers.pipelines",
    *(path.rpartition(".")[0] for paths in TARGETS.values() for path in paths),
):  # fmt: skip
    importlib.import_module(_name)
with charts.style():
    _figure, _ = charts.chart(1)
    charts.png(_figure, "fonts", [Line2D([], [], label="line")])
gc.collect()
gc.freeze()  # else each fork would go through all of this whenever it looks for garbage, and copy it
