"""Inference of votes models with ONNX Runtime on a CPU, for the Space. Legend: B galaxies, A answers, D features,
H and W of a picture, S side of the view.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HFValidationError

from hf_galaxy.data.pictures import Rendering
from hf_galaxy.data.views import Framing, eval_view, to_canvases
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.files import SAFETENSORS, remove_partial
from hf_galaxy.locks import lock_file
from hf_galaxy.plain_json import mapping_in

if TYPE_CHECKING:
    import onnxruntime

    from hf_galaxy.models.model import GalaxyPreTrainedModel
    from hf_galaxy.reports.run_record import RunRecord

CONFIG = "config.json"
# An exported file depends on these besides the run.
LIBRARIES = ("torch", "timm", "transformers", "onnx", "onnxruntime", "onnxscript")
OURS = (
    "decision_tree", "losses", "models/backbones", "models/calibration", "models/configuration", "models/export",
    "models/head_activation", "models/model",
)  # fmt: skip
PACKAGE = Path(__file__).parents[1]


class Answers(NamedTuple):
    """The outputs of a votes model.

    Attributes:
        fractions: (B, A) expected vote fractions, adding up to 1 within each question.
        concentrations: (B, A) of the Dirichlet over vote fractions, or (B, 2, A) of two that are mixed; None with the multinomial likelihood.
        features: (B, D) of the backbone.
        weights: (B, 2, Q) of the two; None if there is one.
    """

    fractions: np.ndarray
    concentrations: np.ndarray | None
    features: np.ndarray
    weights: np.ndarray | None = None


class FastModel:
    """The votes model of a run in ONNX Runtime, equal to torch to 1e-4 (`export.export_onnx`). Threads may share it.

    The first start exports the model, in 10 to 60 seconds, to a file in `cache` whose name is a digest of all that it depends
    on. Later starts, of this and other processes, read that file and import neither transformers nor timm.

    Args:
        run: the run folder, or its Hub id.
        cache: a folder; None: hf_galaxy in the cache of Hugging Face.
        threads: cores that compute one batch.

    Attributes:
        folder: local folder of the run.
        framing, tree: of the model.
        rendering: how files become pictures for it (`GalaxyConfig.file_rendering`).
        mixed: whether it predicts mixtures of two Dirichlet distributions.

    Raises:
        BadInput: there is no such run, it is not finished, or it does not predict votes, or it sees fluxes; the cache cannot be written; or as
            `export_onnx`.
    """

    def __init__(self, run: str | Path, cache: Path | None = None, threads: int = 2) -> None:
        self.folder = _folder_of(run)
        try:
            config = mapping_in((self.folder / CONFIG).read_bytes())
            self.framing, tree = Framing(config["image_size"], config["crop"]), config["tree"]
            self.rendering = Rendering.of(config.get("rendering"))
            digest = _digest(self.folder)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise BadInput(f"{run}: is not the folder of a finished run ({' '.join(str(error).split())})") from error
        if config.get("bands"):
            raise BadInput(f"{run}: sees fluxes in {' '.join(config['bands'])}, and visitors have pictures of 8 bits")
        if tree is None:
            raise BadInput(f"{run}: does not predict votes")
        self.tree = DecisionTree.from_dict(tree)
        self._session = session_of(exported(digest, self._model, cache), threads)
        self._names = [output.name for output in self._session.get_outputs()]
        self.mixed = "weights" in self._names

    def _model(self) -> "tuple[GalaxyPreTrainedModel, RunRecord]":
        from hf_galaxy.models.start import load_run

        return load_run(self.folder)

    def view(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (3, S, S) float32 in [0, 1], the same as in hf-galaxy predict."""
        return eval_view(to_canvases([pixels], self.framing), self.framing)[0].numpy()

    def answer(self, views: np.ndarray) -> Answers:
        """The outputs for (B, 3, S, S) float32 views."""
        outputs = dict(zip(self._names, self._session.run(None, {"pixel_values": views}), strict=True))
        return Answers(outputs["fractions"], outputs.get("concentrations"), outputs["features"], outputs.get("weights"))


def _folder_of(run: str | Path) -> Path:
    if Path(run).is_dir():
        return Path(run)
    try:
        return Path(snapshot_download(str(run), allow_patterns=["*.json", "*.safetensors"]))
    except (OSError, HFValidationError) as error:  # the Hub's other errors are OSErrors
        raise BadInput(f"{run}: is neither the folder nor a reachable Hub id of a finished run ({error})") from error


def _digest(folder: Path) -> str:
    """A digest of all that an exported file depends on."""
    return export_digest((folder / name).read_bytes() for name in (CONFIG, SAFETENSORS))


def export_digest(model: Iterable[bytes]) -> str:
    """A digest of all that an exported file depends on: what describes the model, the libraries and our own code."""
    digest = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in LIBRARIES).encode())
    for content in (*model, *((PACKAGE / f"{name}.py").read_bytes() for name in OURS)):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:32]


def exported(digest: str, load: "Callable[[], tuple[GalaxyPreTrainedModel, RunRecord]]", cache: Path | None) -> Path:
    """The file of an exported model, which is made if it is not there.

    Args:
        digest: of all that it depends on (`export_digest`).
        load: gives the model to export, with its record.
        cache: a folder; None: hf_galaxy in the cache of Hugging Face.

    Raises:
        BadInput: the cache cannot be written; or as `export_onnx`.
    """
    file = (cache or Path(constants.HF_HOME) / "hf_galaxy") / f"{digest}.onnx"
    if not file.exists():
        with _locked(file):
            if not file.exists():  # another process may have exported it meanwhile
                from hf_galaxy.models.export import export_onnx

                remove_partial(file.parent.glob(f".{file.name}.*"))
                export_onnx(*load(), file)
    return file


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Exclude other threads and processes that write this file; the lock of a process that dies is released."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_file(file.with_suffix(".lock"), wait=True)
    except OSError as error:
        raise BadInput(f"{file.parent}: cannot be written ({error.strerror}); choose another cache") from error
    assert lock is not None  # it waited
    with lock:
        yield


def session_of(file: Path, threads: int) -> "onnxruntime.InferenceSession":
    """An exported model, to be run on a CPU with so many threads; raises BadInput if the file is damaged."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Waiting threads would occupy cores that other visitors and models need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has exceptions of its own
        raise BadInput(f"{file}: cannot be read by ONNX Runtime ({error}); remove it") from error
