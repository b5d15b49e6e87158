"""A card says how files became pictures."""

from hf_galaxy.data.pictures import Rendering
from hf_galaxy.publishing.rendering_text import in_words


def test_the_card_says_what_was_done_and_no_more():
    assert in_words(Rendering(), {"jpeg", "png"}) == "The pictures are the original files, byte for byte."
    assert in_words(Rendering(size=424), {"jpeg"}) == (
        "Pictures whose shorter side was longer than 424 pixels were reduced to that (bicubic) and written as JPEG of "
        "quality 95. The other pictures are the original files, byte for byte."
    )
    fits = in_words(Rendering(), {"fits3"})
    for fact in ("FITS images of three bands", "asinh stretch with softening 0.1", "percentiles 0.25 (black) and 99.75 (white)",
                 "the third band is red, the second green and the first blue", "PNGs, without further loss"):  # fmt: skip
        assert fact in fits
    mixed = in_words(Rendering(stretch="lupton", lupton_q=5), {"fits1", "png16", "png16rgb", "other8", "png"})
    for fact in ("FITS images, grey PNGs and TIFFs of 16 bits or more", "lupton stretch (Lupton et al. 2004, Q = 5)", "upper 8 bits",
                 "transparent pixels lie over black", "The 8-bit JPEG and PNG files are the original files"):  # fmt: skip
        assert fact in mixed
    assert "softening" not in mixed
    assert "red" not in mixed.replace("were", "")
    assert "stretch" not in in_words(Rendering(), {"other8"})
    cropped = in_words(Rendering(crop=0.6), {"jpeg", "png"})
    assert (
        "a square in its centre, whose side is 0.6 of the picture's shorter side, and written as JPEG of quality 95"
        in cropped
    )
    assert "original" not in cropped
    both = in_words(Rendering(crop=0.604, size=88, quality=90), {"other8"})
    for fact in (
        "0.604 of the picture's shorter side",
        "reduced to 88 pixels (bicubic) if it was larger",
        "quality 90",
        "RGB",
    ):
        assert fact in both
