"""A small font, drawn here: letters for labels in pictures, without a font file.

Each sign is 5 pixels wide and 7 high; signs that the font does not have become boxes.
"""

import numpy as np
from numpy.typing import NDArray

from vsrm_cli.frame import Pixels

HEIGHT, WIDTH = 7, 5

# Seven rows of five pixels for each sign, # for ink, rows divided by slashes.
_SIGNS = {
    "A": " ### /#   #/#   #/#####/#   #/#   #/#   #",
    "B": "#### /#   #/#   #/#### /#   #/#   #/#### ",
    "C": " ### /#   #/#    /#    /#    /#   #/ ### ",
    "D": "#### /#   #/#   #/#   #/#   #/#   #/#### ",
    "E": "#####/#    /#    /#### /#    /#    /#####",
    "F": "#####/#    /#    /#### /#    /#    /#    ",
    "G": " ### /#   #/#    /# ###/#   #/#   #/ ### ",
    "H": "#   #/#   #/#   #/#####/#   #/#   #/#   #",
    "I": " ### /  #  /  #  /  #  /  #  /  #  / ### ",
    "J": "  ###/   # /   # /   # /   # /#  # / ##  ",
    "K": "#   #/#  # /# #  /##   /# #  /#  # /#   #",
    "L": "#    /#    /#    /#    /#    /#    /#####",
    "M": "#   #/## ##/# # #/# # #/#   #/#   #/#   #",
    "N": "#   #/##  #/# # #/#  ##/#   #/#   #/#   #",
    "O": " ### /#   #/#   #/#   #/#   #/#   #/ ### ",
    "P": "#### /#   #/#   #/#### /#    /#    /#    ",
    "Q": " ### /#   #/#   #/#   #/# # #/#  # / ## #",
    "R": "#### /#   #/#   #/#### /# #  /#  # /#   #",
    "S": " ####/#    /#    / ### /    #/    #/#### ",
    "T": "#####/  #  /  #  /  #  /  #  /  #  /  #  ",
    "U": "#   #/#   #/#   #/#   #/#   #/#   #/ ### ",
    "V": "#   #/#   #/#   #/#   #/#   #/ # # /  #  ",
    "W": "#   #/#   #/#   #/# # #/# # #/# # #/ # # ",
    "X": "#   #/#   #/ # # /  #  / # # /#   #/#   #",
    "Y": "#   #/#   #/ # # /  #  /  #  /  #  /  #  ",
    "Z": "#####/    #/   # /  #  / #   /#    /#####",
    "a": "     /     / ### /    #/ ####/#   #/ ####",
    "b": "#    /#    /# ## /##  #/#   #/#   #/#### ",
    "c": "     /     / ### /#    /#    /#   #/ ### ",
    "d": "    #/    #/ ## #/#  ##/#   #/#   #/ ####",
    "e": "     /     / ### /#   #/#####/#    / ### ",
    "f": "  ## / #  #/ #   /###  / #   / #   / #   ",
    "g": "     / ####/#   #/#   #/ ####/    #/ ### ",
    "h": "#    /#    /# ## /##  #/#   #/#   #/#   #",
    "i": "  #  /     / ##  /  #  /  #  /  #  / ### ",
    "j": "   # /     /  ## /   # /   # /#  # / ##  ",
    "k": "#    /#    /#  # /# #  /##   /# #  /#  # ",
    "l": " ##  /  #  /  #  /  #  /  #  /  #  / ### ",
    "m": "     /     /## # /# # #/# # #/#   #/#   #",
    "n": "     /     /# ## /##  #/#   #/#   #/#   #",
    "o": "     /     / ### /#   #/#   #/#   #/ ### ",
    "p": "     /     /#### /#   #/#### /#    /#    ",
    "q": "     /     / ## #/#  ##/ ####/    #/    #",
    "r": "     /     /# ## /##  #/#    /#    /#    ",
    "s": "     /     / ### /#    / ### /    #/#### ",
    "t": " #   / #   /###  / #   / #   / #  #/  ## ",
    "u": "     /     /#   #/#   #/#   #/#  ##/ ## #",
    "v": "     /     /#   #/#   #/#   #/ # # /  #  ",
    "w": "     /     /#   #/#   #/# # #/# # #/ # # ",
    "x": "     /     /#   #/ # # /  #  / # # /#   #",
    "y": "     /     /#   #/#   #/ ####/    #/ ### ",
    "z": "     /     /#####/   # /  #  / #   /#####",
    "0": " ### /#   #/#  ##/# # #/##  #/#   #/ ### ",
    "1": "  #  / ##  /  #  /  #  /  #  /  #  / ### ",
    "2": " ### /#   #/    #/   # /  #  / #   /#####",
    "3": "#####/   # /  #  /   # /    #/#   #/ ### ",
    "4": "   # /  ## / # # /#  # /#####/   # /   # ",
    "5": "#####/#    /#### /    #/    #/#   #/ ### ",
    "6": "  ## / #   /#    /#### /#   #/#   #/ ### ",
    "7": "#####/    #/   # /  #  / #   / #   / #   ",
    "8": " ### /#   #/#   #/ ### /#   #/#   #/ ### ",
    "9": " ### /#   #/#   #/ ####/    #/   # / ##  ",
    " ": "     /     /     /     /     /     /     ",
    ".": "     /     /     /     /     / ##  / ##  ",
    ",": "     /     /     /     / ##  /  #  / #   ",
    ":": "     / ##  / ##  /     / ##  / ##  /     ",
    "-": "     /     /     /#####/     /     /     ",
    "_": "     /     /     /     /     /     /#####",
    "+": "     /  #  /  #  /#####/  #  /  #  /     ",
    "=": "     /     /#####/     /#####/     /     ",
    "/": "     /    #/   # /  #  / #   /#    /     ",
    "(": "   # /  #  / #   / #   / #   /  #  /   # ",
    ")": " #   /  #  /   # /   # /   # /  #  / #   ",
    "|": "  #  /  #  /  #  /  #  /  #  /  #  /  #  ",
    "%": "##   /##  #/   # /  #  / #   /#  ##/   ##",
    "*": "     /  #  /# # #/ ### /# # #/  #  /     ",
    "'": " ##  /  #  / #   /     /     /     /     ",
    "!": "  #  /  #  /  #  /  #  /  #  /     /  #  ",
    "?": " ### /#   #/    #/   # /  #  /     /  #  ",
}
_BOX = "#####/#   #/#   #/#   #/#   #/#   #/#####"


def text_mask(words: str, *, size: int) -> NDArray[np.bool_]:
    """Where the ink of a line of words is.

    Args:
        words: What is written.
        size: Side of a pixel of the font, in pixels of the picture.

    Returns:
        (7 * size, w), True for ink; one empty column stands between signs.
    """
    columns = [np.zeros((HEIGHT, 0), bool)]
    for sign in words:
        rows = _SIGNS.get(sign, _BOX).split("/")
        drawn = np.array([[pixel == "#" for pixel in row] for row in rows])
        columns += [drawn, np.zeros((HEIGHT, 1), bool)]
    line = np.concatenate(columns, axis=1)[:, : -1 if words else None]
    return line.repeat(size, axis=0).repeat(size, axis=1)


def draw_label(picture: Pixels, words: str, *, right: bool = False) -> None:
    """Write words into the lower left corner of a picture, white on a darkened band.

    The letters grow with the picture; words that are too long for it are cut.

    Args:
        picture: (3, H, W) uint8 or uint16; changed in place.
        words: What to write.
        right: Whether to write into the lower right corner instead.
    """
    height, width = picture.shape[1:]
    size = max(1, height // 180)
    pad = 3 * size
    ink = text_mask(words, size=size)[: max(0, height - 2 * pad), : max(0, width - 2 * pad)]
    if ink.size == 0:
        return
    band_height, band_width = ink.shape[0] + 2 * pad, ink.shape[1] + 2 * pad
    columns = slice(width - band_width, width) if right else slice(0, band_width)
    band = picture[:, height - band_height :, columns]
    band //= 4
    band[:, pad : pad + ink.shape[0], pad : pad + ink.shape[1]][:, ink] = np.iinfo(
        picture.dtype
    ).max
