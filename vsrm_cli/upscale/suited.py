"""Which network suits a video, where the user names none."""

from pathlib import Path

from vsrm_cli.checkpoints.catalog import FOR_CLEAN, FOR_COMPRESSED
from vsrm_cli.media.probe import VideoInfo
from vsrm_cli.upscale.options import DEFAULT_MODEL


def suited_model(wish: str | Path, info: VideoInfo) -> tuple[str | Path, str]:
    """Take the network that the user named, or else the one that measured best on such footage.

    `weights/README.md` has the figures: both networks on clips as they are, and behind H.264.

    Args:
        wish: A network, or `DEFAULT_MODEL` for none.
        info: What is to be enlarged.

    Returns:
        The network, and why it was taken; no words where the user chose.
    """
    if wish != DEFAULT_MODEL:
        return wish, ""
    if info.is_lossy:
        return FOR_COMPRESSED, f"for compressed footage: the input is {info.codec}"
    return FOR_CLEAN, f"for clean footage: {info.codec} loses little or nothing"
