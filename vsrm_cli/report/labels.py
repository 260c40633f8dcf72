"""A small built-in font for labels in images.

Characters are 5 pixels wide and 7 high; missing ones are drawn as boxes.
"""

import numpy as np
from numpy.typing import NDArray

from vsrm_cli.frame import Pixels

HEIGHT, WIDTH = 7, 5

# Seven rows of five pixels for each character, # for ink, rows divided by slashes.
_CHARACTERS = {
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
    """Render a line of text.

    Args:
        words: The text.
        size: Side of a pixel of the font, in pixels of the image.

    Returns:
        (7 * size, w), True for ink, with an empty column between characters.
    """
    columns = [np.zeros((HEIGHT, 0), bool)]
    for sign in words:
        rows = _CHARACTERS.get(sign, _BOX).split("/")
        drawn = np.array([[pixel == "#" for pixel in row] for row in rows])
        columns += [drawn, np.zeros((HEIGHT, 1), bool)]
    line = np.concatenate(columns, axis=1)[:, : -1 if words else None]
    return line.repeat(size, axis=0).repeat(size, axis=1)


def draw_label(image: Pixels, words: str, *, right: bool = False) -> None:
    """Draw text into the lower left corner of an image, white on a darkened band.

    The font size follows that of the image; text that is too long is cut.

    Args:
        image: (3, H, W) uint8 or uint16; changed in place.
        words: The text.
        right: Whether to use the lower right corner instead.
    """
    height, width = image.shape[1:]
    size = max(1, height // 180)
    pad = 3 * size
    ink = text_mask(words, size=size)[: max(0, height - 2 * pad), : max(0, width - 2 * pad)]
    if ink.size == 0:
        return
    band_height, band_width = ink.shape[0] + 2 * pad, ink.shape[1] + 2 * pad
    columns = slice(width - band_width, width) if right else slice(0, band_width)
    band = image[:, height - band_height :, columns]
    band //= 4
    band[:, pad : pad + ink.shape[0], pad : pad + ink.shape[1]][:, ink] = np.iinfo(image.dtype).max
