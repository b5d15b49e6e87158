"""What SECURITY.md says of code, licences and weights is so: no pickle runs code, no shell reads a command, licences and hashes are those listed."""

import ast
import hashlib
import re
import tomllib
from importlib.metadata import metadata

import pytest

from hf_galaxy.download import download
from tests.conftest import ROOT

OURS = [*(ROOT / "hf_galaxy").rglob("*.py"), *(ROOT / "spaces_app").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
RUN_CODE = {
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "pickle.load",
    "pickle.loads",
    "joblib.load",
    "torch.hub.load",
    "yaml.unsafe_load",
}

# Licences as packages write them -> their identifiers of spdx.org.
SPDX = {
    "Apache": "Apache-2.0", "Apache 2.0": "Apache-2.0", "Apache 2.0 License": "Apache-2.0",
    "Apache Software License": "Apache-2.0", "BSD": "BSD-3-Clause", "BSD License": "BSD-3-Clause",
    "MIT License": "MIT", "Python Software Foundation License": "PSF-2.0",
}  # fmt: skip


def calls():
    for path in OURS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield (
                    f"{path.relative_to(ROOT)}:{node.lineno}",
                    ast.unparse(node.func),
                    {k.arg: ast.unparse(k.value) for k in node.keywords},
                )


def test_no_pickle_runs_code_and_no_shell_reads_a_command():
    found = list(calls())
    assert sum(name == "torch.load" for _, name, _ in found) >= 2, "else this test looks for the wrong name"
    wrong = [
        f"{place}: {name}"
        for place, name, options in found
        if name in RUN_CODE
        or (name == "torch.load" and options.get("weights_only") != "True")
        or (name.endswith("np.load") and options.get("allow_pickle", "False") != "False")
        or options.get("shell", "False") != "False"
        or options.get("trust_remote_code", "False") == "True"
    ]
    assert not wrong


def licence_of(package):
    """Of an installed package, by its metadata."""
    about = metadata(package)
    classifiers = [each.split(" :: ")[-1] for each in about.get_all("Classifier") or [] if each.startswith("License")]
    stated = about.get("License-Expression") or (classifiers or [about.get("License")])[0]
    return SPDX.get(stated, stated)


def test_the_licences_of_what_is_installed_with_the_package_are_listed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages = [re.match(r"[\w.-]+", each)[0] for each in project["dependencies"]]
    listed = dict(re.findall(r"(?m)^\| ([\w-]+) \| (.+) \|$", (ROOT / "SECURITY.md").read_text(encoding="utf-8")))
    assert (listed.pop("package"), listed.pop("---")) == ("licence", "---")
    assert listed == {package: licence_of(package) for package in packages}


def test_shipped_weights_have_the_hashes_that_are_listed():
    folder = ROOT / "spaces_app/models"
    listed = [line.split("  ") for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()]
    weights = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.safetensors")}
    assert {name: digest for digest, name in listed} == {n: hashlib.sha256(b).hexdigest() for n, b in weights.items()}


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", "FILE:///etc/passwd", "ftp://x/y", "data:text/plain,x", "/etc/passwd"]
)
def test_no_address_reads_a_file_of_this_machine(address):
    with pytest.raises(ValueError, match="must begin with http"):
        download(address, 1, 100)
