"""An encoded picture → pixels as people see them: upright, on white where it is transparent, in RGB.

What enters: bytes of the formats below. What leaves: a Pillow image. How many pixels a picture has is read from its head, and
what is more than a model has a use for is refused before it is decoded.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

from PIL import Image, ImageOps

from .contract import BadInput, shown

Image.init()  # all that this Pillow has: ``Image.open`` raises for a format that is not registered, whatever the picture is
# What JPEG opens may turn out as MPO, a JPEG with a second view behind it, which has no name of its own here. AVIF is not in
# every build.
FORMATS = tuple(name for name in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM") if name in Image.OPEN)
MOST_PIXELS = 2**26  # 67 million, more than a telephone's camera makes; 200 MB
MOST_PIXELS_TOGETHER = 2**27  # of all pictures of a row
MOST_PICTURES = 64
# A line of 1 × 60,000 pixels becomes 224 × 13 million, where a processor makes the shorter side 224. Qwen's refuses as many.
LONGEST_TO_SHORTEST = 200


def read_image(data: bytes) -> Image.Image:
    """One picture."""
    return read_images([data])[0]


def read_images(several: Sequence[bytes]) -> list[Image.Image]:
    """All pictures of a row."""
    if len(several) > MOST_PICTURES:
        raise BadInput(f"IMAGE has {len(several)} pictures, a request may have {MOST_PICTURES}")
    left, pictures = MOST_PIXELS_TOGETHER, []
    for data in several:
        picture = _decode(data, min(left, MOST_PIXELS))
        left -= picture.width * picture.height
        pictures.append(picture)
    return pictures


def _decode(data: bytes, most_pixels: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Pillow's own bound comes after ours; broken tags are no reason to refuse a picture
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_size(picture.size, most_pixels)
            return _on_white(_upright(picture))
    except BadInput:
        raise
    except Exception as error:  # decoders raise whatever foreign bytes lead them to
        reason = shown(str(error)).replace("<_io.BytesIO object at", "<bytes at")
        raise BadInput(f"IMAGE cannot be read as a picture ({len(data)} bytes): {reason}") from error


def _check_size(size: tuple[int, int], most_pixels: int) -> None:
    width, height = size
    if width * height > most_pixels:
        raise BadInput(
            f"IMAGE is {width} × {height} = {width * height:,} pixels, at most {most_pixels:,} are taken here; make it smaller"
        )
    if max(size) > LONGEST_TO_SHORTEST * min(size):
        raise BadInput(f"IMAGE is {width} × {height}: one side may be {LONGEST_TO_SHORTEST} times the other at most")


def _upright(picture: Image.Image) -> Image.Image:
    """Turned as its EXIF data say; as it lies where they are broken."""
    picture.load()  # what is wrong with the pixels is said, not passed over
    try:
        turned: Image.Image = ImageOps.exif_transpose(picture)
    except Exception:
        return picture
    return turned


def _on_white(picture: Image.Image) -> Image.Image:
    """In RGB; what shows through is white, as a page is, and as vLLM has it."""
    if picture.mode.startswith("I"):  # 16 bits a pixel: Pillow would cut them off at 255
        picture = picture.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        page = Image.new("RGB", layer.size, (255, 255, 255))
        page.paste(layer, mask=layer.getchannel("A"))
        return page
    return picture.convert("RGB")
