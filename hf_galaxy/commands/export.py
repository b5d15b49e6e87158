"""Export a trained model for other libraries.

    hf-galaxy export encoder --run runs/ceers --out encoders/ceers
    hf-galaxy export onnx --run runs/ceers --out ceers.onnx

An encoder takes a few seconds on one core; an ONNX file, whose outputs are compared with torch, 10 to 60 seconds.
"""

from dataclasses import dataclass

from hf_galaxy.command_line import Command, OutputPath, RunFolder


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Write the backbone alone, for timm.create_model (if it is a timm backbone) and for transformers.AutoModel."""

    run: RunFolder
    """The run folder."""
    out: OutputPath
    """Output folder; an earlier export there is replaced."""


@dataclass(frozen=True, kw_only=True)
class Onnx:
    """Write the whole model as an ONNX file, for ONNX Runtime and other programs without torch."""

    run: RunFolder
    """The run folder."""
    out: OutputPath
    """Output file, such as model.onnx; an earlier export there is replaced."""


def main(settings: Encoder | Onnx) -> None:
    from hf_galaxy.models.export import check_encoder_folder, check_onnx_file, export_encoder, export_onnx
    from hf_galaxy.models.start import load_run

    if isinstance(settings, Encoder):
        check_encoder_folder(settings.out)
        export_encoder(*load_run(settings.run), settings.out)
        print(f"{settings.out}: its weights and features are bit for bit those of the backbone of {settings.run}")
        return
    check_onnx_file(settings.out)
    differences = export_onnx(*load_run(settings.run), settings.out)
    shares = ", ".join(f"{share:.1e} ({name})" for name, share in differences.items())
    print(
        f"{settings.out}: {settings.out.stat().st_size / 1e6:.1f} MB; differs from torch by at most {shares} of a column's largest value"
    )


command = Command(Encoder | Onnx, main)

if __name__ == "__main__":
    command()
