"""Workers without a network, for the tests of worker processes."""

import os
import signal
import time
from pathlib import Path

from vsrm_cli.errors import InputError, VsrmError


class Squaring:
    """Gives the square of a number."""

    def __init__(self, device):
        self.facts = f"on {device}"

    def work(self, task, report):
        report(1)
        return task * task


class Failing(Squaring):
    """Cannot do 3."""

    def work(self, task, report):
        if task == 3:
            raise InputError("3 is no good.")
        return super().work(task, report)


class Broken(Squaring):
    """Fails at every task, by a bug."""

    def work(self, task, report):
        raise ZeroDivisionError("by zero")


class Unusable(Squaring):
    """Cannot be used on one device."""

    def __init__(self, device):
        super().__init__(device)
        if device == "b":
            raise VsrmError("There is no device b.")


class Dying:
    """Is killed at 3, once."""

    def __init__(self, folder, device):
        self.facts = None
        self._once = Path(folder) / "died"

    def work(self, task, report):
        if task == 3 and not self._once.exists():
            self._once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return task * task


class Slow(Squaring):
    """Takes its time."""

    def work(self, task, report):
        time.sleep(0.2)
        return super().work(task, report)


class Hanging:
    """Hangs at 3, once, as a call of a driver that never returns."""

    def __init__(self, folder, device):
        self.facts = None
        self._once = Path(folder) / "hung"

    def work(self, task, report):
        for item in range(3):
            time.sleep(0.02)
            report(item + 1)
        if task == 3 and not self._once.exists():
            self._once.touch()
            time.sleep(600)
        return task * task


class Slowing(Squaring):
    """Takes a tenth of a second for each unit of a number."""

    def work(self, task, report):
        time.sleep(task / 10)
        return super().work(task, report)


class Changing(Squaring):
    """Dies at 3, once, and is restarted on other hardware."""

    def __init__(self, folder, device):
        self._once = Path(folder) / "died"
        self.facts = "another" if self._once.exists() else "the first"

    def work(self, task, report):
        if task == 3 and not self._once.exists():
            self._once.touch()
            os._exit(7)
        time.sleep(0.2)
        return super().work(task, report)
