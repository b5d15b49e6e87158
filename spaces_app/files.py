"""Gradio components for pictures and files whose handlers get the uploaded files unopened; `uploads` checks their content.

gr.Image opens pictures itself, in a hundred formats, and gr.File leaves an empty temporary file for each upload.
"""

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder


class PictureBox(gr.Image):
    """A picture that a visitor drops, pastes or takes; its handlers get the path of the file, or None."""

    is_template = True  # in the browser it is its parent

    def preprocess(self, payload: Any) -> str | None:
        """The path of the uploaded file, or None."""
        return payload and payload.path


class FileBox(gr.File):
    """One or several files, for programs and visitors; its handlers get paths."""

    is_template = True

    def preprocess(self, payload: Any) -> str | list[str] | None:
        """The path of the uploaded file, a list of paths, or None."""
        if self.file_count == "single" or payload is None:
            return payload and payload.path
        return [file.path for file in payload]


class FileButton(gr.UploadButton):
    """A button to choose a file; its handlers get the path."""

    is_template = True

    def preprocess(self, payload: Any) -> str | None:
        """The path of the uploaded file, or None."""
        return payload and payload.path


def handed_over(file: Path) -> str:
    """A copy of a file in the folder that gradio serves and `temporary` clears; the file itself may be deleted."""
    return save_file_to_cache(file, cache_dir=get_upload_folder())
