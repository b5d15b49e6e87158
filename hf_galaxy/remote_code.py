"""The code that goes with a saved model: transformers loads it from there where hf_galaxy is not installed.

Only if asked to, with `trust_remote_code=True`. Where hf_galaxy is imported, its own classes are taken in any case.
"""

import json
import re
from pathlib import Path

HERE = Path(__file__).parent
IMPORT = re.compile(r"^from hf_galaxy\.(\w+) import", re.MULTILINE)
# What the models and their pipeline consist of. Beside torch and transformers these need timm, and the pipeline scipy; what
# is imported within a try, as astropy for FITS files, transformers takes for optional.
MODULES = (
    "errors", "decision_tree", "losses", "views", "backbones", "remote_code", "model", "pictures", "morphology", "pipeline",
)  # fmt: skip
PIPELINE = {"impl": "pipeline.GalaxyMorphologyPipeline", "pt": ["AutoModel"], "type": "image"}


def forget_code(attributes: dict) -> dict:
    """Attributes of a configuration without those that say where its code is, if hf_galaxy is here instead.

    Else `pipeline("galaxy-morphology", ...)` would insist on the code of the folder.
    """
    if __package__ != "hf_galaxy":
        return attributes
    return {name: value for name, value in attributes.items() if name not in ("auto_map", "custom_pipelines")}


def save_code(folder: Path, model_class: str) -> None:
    """Write the modules into a saved model's folder, side by side, and into its config.json where its classes are.

    Args:
        model_class: of the saved model.
    """
    if __package__ != "hf_galaxy":  # this is such a copy: then transformers itself copies what it has loaded
        return
    for name in MODULES:
        code = (HERE / f"{name}.py").read_text(encoding="utf-8")
        # Beside each other, and under a name that transformers makes up, they can only be found relatively.
        (folder / f"{name}.py").write_text(IMPORT.sub(r"from .\1 import", code), encoding="utf-8")
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["auto_map"] = {"AutoConfig": "model.GalaxyConfig"}
    # As a classifier, too, as in __init__.py.
    config["auto_map"] |= dict.fromkeys(["AutoModel", "AutoModelForImageClassification"], f"model.{model_class}")
    if config["tree"] is not None:
        config["custom_pipelines"] = {"galaxy-morphology": PIPELINE}
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
