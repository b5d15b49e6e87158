"""How files became the pictures of a dataset, in sentences for its card."""

from hf_galaxy.data.pictures import UNCHANGED, Rendering


def in_words(rendering: Rendering, kinds: set[str]) -> str:
    """How files of these kinds (of `pictures.kind_of`) were rendered."""
    sentences = []
    names = {
        "fits1": "FITS images",
        "fits3": "FITS images of three bands",
        "bands": "Fluxes",
        "png16": "grey PNGs and TIFFs of 16 bits or more",
    }
    if values := [name for kind, name in names.items() if kind in kinds]:
        stretch = f"{rendering.stretch} stretch"
        if rendering.stretch == "asinh":
            stretch += f" with softening {rendering.softening:g}"
        elif rendering.stretch == "lupton":
            stretch += f" (Lupton et al. 2004, Q = {rendering.lupton_q:g})"
        sentences.append(
            f"{', '.join(values)} were converted to pictures by the {stretch} between percentiles {rendering.low:g} (black) "
            f"and {rendering.high:g} (white) of each file's finite values."
        )
    if "fits3" in kinds:
        red, green, blue = (("first", "second", "third")[band] for band in rendering.rgb)
        sentences.append(f"The bands share one interval; the {red} band is red, the {green} green and the {blue} blue.")
    if "png16rgb" in kinds:
        sentences.append("PNGs with 16 bits per band and colour or transparency keep only their upper 8 bits.")
    if kinds & {"other8", "png16rgb"}:
        sentences.append(
            "Palettes and other colour spaces were converted to RGB, and transparent pixels lie over black."
        )
    if rendering.crop < 1:
        reduced = f", reduced to {rendering.size} pixels (bicubic) if it was larger" if rendering.size else ""
        sentences.append(
            f"Each picture was cropped to a square in its centre, whose side is {rendering.crop:g} of the picture's shorter "
            f"side{reduced}, and written as JPEG of quality {rendering.quality}."
        )
        return " ".join(sentences)  # no file is unchanged
    if rendering.size:
        sentences.append(
            f"Pictures whose shorter side was longer than {rendering.size} pixels were reduced to that (bicubic) and "
            f"written as JPEG of quality {rendering.quality}."
        )
    other = "other " if rendering.size else ""
    if kinds - UNCHANGED:
        sentences.append(f"The {other}converted pictures are PNGs, without further loss.")
    if kinds & UNCHANGED:
        files = "8-bit JPEG and PNG files" if kinds - UNCHANGED else "pictures"
        sentences.append(f"The {other}{files} are the original files, byte for byte.")
    return " ".join(sentences)
