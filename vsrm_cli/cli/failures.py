"""Exceptions become one line on stderr and an exit code."""

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from vsrm_cli.cli import console
from vsrm_cli.errors import Declined, Interrupted, VsrmError

EXIT_FAILED = 1
EXIT_INTERRUPTED = Interrupted.exit_code

# A full disk, a quota (not on Windows), and the largest size of a file.
_NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG}


@contextmanager
def report_failures(*, debug: bool | None = None) -> Iterator[None]:
    """Turn exceptions into a line on stderr and an exit code; tracebacks are for debugging.

    Args:
        debug: Whether to print tracebacks; None for a command without --debug, which prints
            those of bugs.
    """
    try:
        yield
    except Declined:
        raise typer.Exit(Declined.exit_code) from None
    except Interrupted as stop:
        console.print_note(str(stop))
        raise typer.Exit(stop.exit_code) from None
    except KeyboardInterrupt as stop:
        if debug:
            traceback.print_exc()
        console.print_note(str(stop) or "interrupted: nothing was written")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except (typer.Exit, BrokenPipeError):  # reported already; or nobody reads stdout anymore
        raise
    except Exception as error:
        message = _message_of(error)
        if debug or (message is None and debug is None):
            traceback.print_exc()
        if message is None:
            advice = " run it again with --debug and" if debug is False else ""
            bug = f"this is a bug in vsrm:{advice} please report it"
            message = f"{type(error).__name__}: {error} ({bug})"
        console.print_error(message)
        code = error.exit_code if isinstance(error, VsrmError) else EXIT_FAILED
        raise typer.Exit(code) from None


def _message_of(error: Exception) -> str | None:
    """What the user can do about an error; None for a bug."""
    if isinstance(error, VsrmError):
        return str(error)
    if _is_memory_shortage(error):
        return (
            "There is not enough memory; close other programs, or give a smaller --tile, --window "
            "or --batch."
        )
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return (
            f"{error.filename or 'The output'} could not be written ({error.strerror}); make room "
            "on the disk, then run the same command again."
        )
    return None


def _is_memory_shortage(error: Exception) -> bool:
    # Not at the top: a mistyped option need not wait for torch.
    from vsrm_cli.inference.memory import is_memory_shortage

    return is_memory_shortage(error)
