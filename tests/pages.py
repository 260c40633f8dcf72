"""Pictures out of HTML pages."""

import base64
import io
import re

import numpy as np
from PIL import Image


def decoded(png):
    return np.moveaxis(np.asarray(Image.open(io.BytesIO(png))), -1, 0)


def pictures_of(page):
    """The pictures in a page, (3, H, W) uint8 each, in its order."""
    return [decoded(base64.b64decode(x)) for x in re.findall(r"base64,([^\"]+)", page)]
