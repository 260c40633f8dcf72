"""Weight files from the Hugging Face Hub, through its own client.

The client's cache, HF_TOKEN and HF_HUB_OFFLINE work as usual. A fixed rule selects the weight file
of a repository, which is read as untrusted.
"""

import re
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined] # public, by its documentation
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from vsrm_cli.errors import WeightsError

# Raised by the Hub's client when a connection fails. The base class depends on the version
# (requests, httpx); `HfHubHTTPError` is a public subclass of it in all versions.
_ConnectionFailed: type[Any] = HfHubHTTPError.__mro__[1]

FIRST_CHOICE = "model.safetensors"
ENDINGS = (".safetensors", ".pth")

_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?", re.ASCII)


def is_hub_id(name: str) -> bool:
    """Whether a name has the form ``owner/name`` or ``owner/name@revision``."""
    return _ID.fullmatch(name) is not None and not name.endswith(ENDINGS)


def fetch_from_hub(name: str) -> Path:
    """Download a repository's weight file into the Hub's cache, unless it is there.

    Args:
        name: ``owner/name[@revision]``; a revision is a branch, a tag or a commit.

    Returns:
        Its path: ``model.safetensors``, or else the only safetensors or PyTorch file.

    Raises:
        WeightsError: If there is no such repository, revision or file, if it may not be read, or if
            the Hub cannot be reached and the file is not in the cache.
    """
    match = _ID.fullmatch(name)
    if not match:
        raise WeightsError(f"{name!r} is not a Hub id; one is owner/name or owner/name@revision.")
    repo, revision = match["repo"], match["revision"]
    try:
        with _without_bars():
            return _fetch(repo, revision)
    except GatedRepoError as error:
        raise WeightsError(
            f"The Hub repository {repo} asks you to accept its terms; do so on its page, and set "
            "HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise WeightsError(
            f"There is no file {name!r}, and no Hub repository {repo} that you may read; a private "
            "one needs HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise WeightsError(f"The Hub repository {repo} has no revision {revision!r}.") from error
    except HFValidationError as error:
        raise WeightsError(f"{name!r} is neither a file nor a Hub id ({error}).") from error
    except (LocalEntryNotFoundError, OSError, _ConnectionFailed) as error:
        raise WeightsError(
            f"There is no file {name!r}; as a Hub id it is not in the cache, and the Hub cannot be "
            f"reached ({type(error).__name__}): when online, run 'vsrm models pull {name}'."
        ) from error


@contextmanager
def _without_bars() -> Iterator[None]:
    """Disable the progress bars of the Hub's client."""
    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _fetch(repo: str, revision: str | None) -> Path:
    try:
        return Path(
            hf_hub_download(
                repo, FIRST_CHOICE, revision=revision, local_files_only=_is_out_of_reach()
            )
        )
    except LocalEntryNotFoundError:  # offline: use what an earlier call has fetched
        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True))
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
        return folder / _only(repo, names)
    except EntryNotFoundError:
        chosen = _only(repo, HfApi().list_repo_files(repo, revision=revision))
        return Path(hf_hub_download(repo, chosen, revision=revision))


def _is_out_of_reach() -> bool:
    """Whether the Hub's host name cannot be resolved: its client would retry for half a minute."""
    if getproxies().keys() - {"no"}:  # a proxy may resolve it
        return False
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, None)
    except OSError:
        return True
    return False


def _only(repo: str, names: Collection[str]) -> str:
    """The weight file among a repository's files."""
    for ending in ENDINGS:
        found = sorted(name for name in names if name.endswith(ending))
        if len(found) == 1:
            return found[0]
        if found:
            raise WeightsError(
                f"The Hub repository {repo} has several weight files ({', '.join(found[:5])}); "
                "download the right one and give its path."
            )
    raise WeightsError(f"The Hub repository {repo} has no {' or '.join(ENDINGS)} file.")
