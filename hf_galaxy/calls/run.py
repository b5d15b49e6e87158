"""`hf_galaxy.Run`: a run folder as an object, which predicts, is pushed to the Hub, and shows itself in a notebook."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_galaxy.calls.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd


class Run(RunFolder):
    """A run: what `hf_galaxy.finetune` returns, and `hf_galaxy.Run("runs/rings")` opens. In a notebook it shows its tables and figures.

    Args:
        folder: the run folder.

    Raises:
        BadInput: it is none.

    Example:
        >>> run = hf_galaxy.Run("runs/rings")
        >>> run.results["test"]["loss"]      # {"model": ..., "baseline": ...}
        >>> run.model                        # a model of transformers, on the CPU
        >>> run.predict("new_pictures/")     # a table
    """

    def predict(self, data: Any, **options: Any) -> "pd.DataFrame | Path":
        """The predictions of its model, as `hf_galaxy.predict` with the same options."""
        from hf_galaxy.calls.predict import predict

        return predict(self, data, **options)

    def embed(self, data: Any, **options: Any) -> "pd.DataFrame | Path":
        """The features of its backbone, as `hf_galaxy.embed` with the same options."""
        from hf_galaxy.calls.predict import embed

        return embed(self, data, **options)

    def push(
        self,
        repo: str,
        *,
        license: str | None = None,
        datasets: str | Sequence[str] = (),
        base_model: str | None = None,
        allow_pickle: str | Sequence[str] = (),
    ) -> str:
        """Update the card and upload the folder to the Hub: what the command `hf-galaxy push` does.

        Args:
            repo: ORG/NAME.
            license: of the weights, an identifier such as "cc-by-nc-sa-4.0"; by default that of the training data, from its card.
            datasets: Hub ids of the training data, if the run used a local copy.
            base_model: Hub id of the weights that the run started from, if it used a local copy.
            allow_pickle: pickles in the folder to upload, although they can run any code when loaded.

        Returns:
            The address of the repository.

        Raises:
            BadInput: the run is not finished, no licence is known, or the Hub refused; an interrupted upload resumes when it is
                called again.

        Example:
            >>> run.push("me/rings", license="apache-2.0")
        """
        from hf_galaxy.calls.process_state import python_names
        from hf_galaxy.commands.push import Publish, publish
        from hf_galaxy.typed_options import checked

        chosen = dict(license=license, datasets=datasets, base_model=base_model, allow_pickle=allow_pickle)
        settings = Publish(**checked(Publish, {"run": self.folder, "push": repo} | chosen))
        with python_names(Publish):
            return publish(settings).address or ""
