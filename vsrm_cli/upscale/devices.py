"""The devices of a job, and the settings of the network on them."""

from collections import Counter
from collections.abc import Sequence

import torch

from vsrm_cli.checkpoints.loading import DTYPES, find_device, has_amx
from vsrm_cli.errors import OutputError, VsrmError
from vsrm_cli.inference.cuda_graphs import ReplayedNetwork
from vsrm_cli.inference.memory import keep_freed_memory
from vsrm_cli.inference.restorer import Restorer
from vsrm_cli.inference.tiling import MAX_BATCH
from vsrm_cli.media.probe import VideoInfo
from vsrm_cli.models.network import Network
from vsrm_cli.upscale.journal import Journal
from vsrm_cli.upscale.options import UpscaleOptions
from vsrm_cli.upscale.pipeline import queue_depth
from vsrm_cli.upscale.settings import JobSettings

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

# Maximum number of tiles at the same time on a CPU with as many cores.
MAX_WORKERS = 4

# The journal's name for devices of different kinds.
MIXED = "mixed"


def find_devices(wanted: str, *, mixed: bool) -> list[str]:
    """The devices of a job, all of them on this machine.

    Args:
        wanted: Names separated by commas, "cuda:all", or "auto".
        mixed: Whether they may be of different kinds.

    Raises:
        VsrmError: If this machine lacks one, a GPU is named twice, or they are of different kinds.
    """
    names = wanted.split(",")
    if wanted == "cuda:all":
        names = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if not names:
        raise VsrmError("This machine has no CUDA device; use --device cpu or auto.")
    found = [find_device(name) for name in names]
    if len(found) == 1:
        return names
    devices = [str(device) if device.type != "cuda" else _numbered(device) for device in found]
    for device, count in Counter(devices).items():
        if count > 1 and device != "cpu":
            raise VsrmError(f"--device {wanted} names {device} twice; name each GPU once.")
    if device_kind(devices) == MIXED and not mixed:
        raise VsrmError(
            f"--device {wanted} names devices of different kinds, whose frames differ by rounding; "
            "name devices of one kind, or allow it with --mixed."
        )
    return devices


def _numbered(device: torch.device) -> str:
    return f"{device.type}:{device.index or 0}"


def device_kind(devices: Sequence[str]) -> str:
    """The kind of all of some devices: "cpu", "cuda", "mps" or `MIXED`."""
    kinds = {find_device(device).type for device in devices}
    return kinds.pop() if len(kinds) == 1 else MIXED


def hardware_of(device: torch.device) -> str:
    """The hardware of a device; frames from the same hardware are equal."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    # The instructions of a CPU decide on the order of sums, and on the default precision.
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"cpu {instructions}{' AMX' if has_amx() else ''}"


def resolve_hardware(hardware: Sequence[str], journal: Journal, *, mixed: bool) -> str:
    """The hardware of a whole job, including its finished part; or `MIXED`.

    Raises:
        VsrmError: If it differs, and ``mixed`` is false.
    """
    kinds = set(hardware)
    if len(kinds) > 1 and not mixed:
        raise VsrmError(
            f"The devices are {' and '.join(sorted(kinds))}, whose frames differ by rounding; "
            "name devices of one kind, or allow it with --mixed."
        )
    earlier = journal.settings.hardware if journal.settings else None
    if earlier == "cpu":  # journals of 0.1 did not distinguish CPUs
        earlier = next((kind for kind in kinds if kind.startswith("cpu")), earlier)
    if earlier is not None and {earlier} != kinds:
        if not mixed:
            raise OutputError(
                f"{journal.folder} holds an unfinished run on {earlier}, and frames of "
                f"{' and '.join(sorted(kinds))} differ by rounding; allow it with --mixed, or give "
                "--restart to start over."
            )
        return MIXED
    return kinds.pop() if len(kinds) == 1 else MIXED


def new_restorer(
    network: Network, options: UpscaleOptions, settings: JobSettings | None
) -> Restorer:
    """Create the restorer of a network, with the settings for its device.

    Args:
        network: On its device.
        options: The options of the job.
        settings: Of the interrupted job that is resumed.
    """
    is_cpu = network.device.type == "cpu"
    if is_cpu:
        keep_freed_memory()
    return Restorer(
        network if network.device.type != "cuda" else ReplayedNetwork(network),
        window=options.window,
        overlap=options.overlap,
        tile=settings.tile if settings else options.tile,
        device=network.device,
        dtype=network.clip_dtype,
        workers=min(MAX_WORKERS, torch.get_num_threads()) if is_cpu else 1,
        batch=1 if is_cpu else settings.batch if settings else None,
    )


def queue_depths(info: VideoInfo, options: UpscaleOptions, restorer: Restorer) -> tuple[int, int]:
    """Lengths of the queues of input and output frames: all that the network takes at once."""
    frame_bytes = info.width * info.height * (3 if info.bits <= 8 else 6)
    frames = options.window * (1 if restorer.batch == 1 else MAX_BATCH)
    large = frame_bytes * restorer.network.scale**2
    return queue_depth(frames, frame_bytes), queue_depth(frames, large)
