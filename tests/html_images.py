"""Images embedded in HTML pages."""

import base64
import io
import re

import numpy as np
from PIL import Image


def decode_png(png):
    return np.moveaxis(np.asarray(Image.open(io.BytesIO(png))), -1, 0)


def images_of(page):
    """The images of a page in order, (3, H, W) uint8 each."""
    return [decode_png(base64.b64decode(x)) for x in re.findall(r"base64,([^\"]+)", page)]
