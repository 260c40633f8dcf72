"""vsrm: make a small video four times larger with Mamba video super-resolution networks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vsrm_cli.checkpoints.loading import load_model
    from vsrm_cli.errors import VsrmError
    from vsrm_cli.upscale.job import upscale_video
    from vsrm_cli.upscale.pipeline import Progress

__all__ = ["Progress", "VsrmError", "load_model", "upscale_video"]
__version__ = "0.1.0"

_HOMES = {
    "Progress": "vsrm_cli.upscale.pipeline",
    "VsrmError": "vsrm_cli.errors",
    "load_model": "vsrm_cli.checkpoints.loading",
    "upscale_video": "vsrm_cli.upscale.job",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that importing the package stays cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
