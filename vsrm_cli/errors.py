"""What can go wrong for a user.

A `VsrmError` is for what a user can fix. Its message is one sentence or two: what was found,
and what to do. The command line prints it and exits with its exit code. Every other exception
is a mistake of the caller (`ValueError`, `TypeError`) or a bug, and keeps its traceback.
"""


class VsrmError(Exception):
    """A failure the user can do something about; the message says what."""

    exit_code = 1


class UsageError(VsrmError):
    """An option has a value that can never work, whatever the input is."""

    exit_code = 2


class InputError(VsrmError):
    """The input cannot be read as a video."""


class OutputError(VsrmError):
    """The output cannot be written."""


class WeightsError(VsrmError):
    """A weight file is missing, damaged, or made for another network."""


class MemoryShortage(VsrmError):
    """Not even the smallest tile, or a step of training, fits into the memory of the device."""


class CheckFailed(VsrmError):
    """The job ran, but its result failed the check and was not kept."""

    exit_code = 3


class Interrupted(VsrmError):
    """The user has stopped the job; the message says how to resume."""

    exit_code = 130  # what shells report for a program that SIGINT has ended


class Declined(VsrmError):
    """`confirm` returned false for the plan, so nothing was done."""

    exit_code = 0
