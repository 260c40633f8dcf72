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
    except VsrmError as error:
        _print_traceback(bool(debug))
        console.print_error(str(error))
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt as stop:
        _print_traceback(bool(debug))
        console.print_note(str(stop) or "interrupted: nothing was written")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except (typer.Exit, BrokenPipeError):  # reported already; or nobody reads stdout anymore
        raise
    except Exception as error:
        if _is_memory_shortage(error):
            _print_traceback(bool(debug))
            console.print_error(
                "There is not enough memory; close other programs, or give a smaller --tile, "
                "--window or --batch."
            )
            raise typer.Exit(EXIT_FAILED) from None
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            _print_traceback(bool(debug))
            console.print_error(
                f"{error.filename or 'The output'} could not be written ({error.strerror}); make "
                "room on the disk, then run the same command again."
            )
            raise typer.Exit(EXIT_FAILED) from None
        _print_traceback(debug is not False)
        advice = " run it again with --debug and" if debug is False else ""
        console.print_error(
            f"{type(error).__name__}: {error} (this is a bug in vsrm:{advice} please report it)"
        )
        raise typer.Exit(EXIT_FAILED) from None


def _is_memory_shortage(error: Exception) -> bool:
    # Not at the top: a mistyped option need not wait for torch.
    from vsrm_cli.inference.memory import is_memory_shortage

    return is_memory_shortage(error)


def _print_traceback(is_wanted: bool) -> None:
    if is_wanted:
        traceback.print_exc()
