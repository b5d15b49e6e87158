"""Gradio's boxes for pictures and files, but handing over what was sent as it is: what it holds is for `uploads` to judge.

gr.Image opens pictures itself, in a hundred formats, and gr.File leaves an empty temporary file for each that it hands over.
"""

from pathlib import Path

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder


class PictureBox(gr.Image):
    """A picture that a visitor drops, pastes or takes; its handlers get the path of the file that was sent, or None."""

    is_template = True  # in the browser it is its parent

    def preprocess(self, payload):
        """The path that gradio stored it under."""
        return payload and payload.path


class FileBox(gr.File):
    """A file, or several, for programs and for visitors; its handlers get paths."""

    is_template = True

    def preprocess(self, payload):
        """The path that gradio stored it under, or a list of them, or None."""
        if self.file_count == "single" or payload is None:
            return payload and payload.path
        return [file.path for file in payload]


class FileButton(gr.UploadButton):
    """A button that asks for a file; its handlers get the path."""

    is_template = True

    def preprocess(self, payload):
        """The path that gradio stored it under, or None."""
        return payload and payload.path


def handed_over(file: Path) -> str:
    """A copy of a file in the folder that gradio serves from and clears; the file itself is no longer needed."""
    return save_file_to_cache(file, cache_dir=get_upload_folder())
