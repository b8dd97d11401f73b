"""Pictures for people: PNG files with a caption, made by Pillow."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_LINE = 22  # pixels per caption line
_MARGIN = 10


class PillowPicture:
    """Implements the `Picture` and `Encoder` ports."""

    def png(self, rgb: NDArray[np.uint8], caption: Sequence[str]) -> bytes:
        """Return the picture with the caption on a dark strip below it, as PNG bytes."""
        out = io.BytesIO()
        _captioned(rgb, caption).save(out, "PNG")
        return out.getvalue()

    def plain(self, pixels: NDArray[np.uint8]) -> bytes:
        """Return grey, RGB or RGBA pixels as PNG; quickly rather than small."""
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG", compress_level=1)
        return out.getvalue()

    def captioned(self, rgb: NDArray[np.uint8], caption: Sequence[str]) -> NDArray[np.uint8]:
        """Return the same picture as an array of (rows, columns, 3)."""
        return np.asarray(_captioned(rgb, caption))


def _captioned(rgb: NDArray[np.uint8], caption: Sequence[str]) -> Image.Image:
    strip = _LINE * len(caption) + 2 * _MARGIN if caption else 0
    image = Image.new("RGB", (max(rgb.shape[1], 640 if caption else 1), rgb.shape[0] + strip))
    image.paste(Image.fromarray(rgb), ((image.width - rgb.shape[1]) // 2, 0))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=15)
    for line, text in enumerate(caption):
        place = (_MARGIN, rgb.shape[0] + _MARGIN + line * _LINE)
        draw.text(place, text, fill=(235, 235, 235), font=font)
    return image
