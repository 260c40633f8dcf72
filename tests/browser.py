"""Headless Chromium, controlled through the DevTools protocol over two pipes.

https://chromedevtools.github.io/devtools-protocol/ lists its commands.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from itertools import count

if sys.platform != "win32":
    import fcntl

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = None if sys.platform == "win32" else next(filter(None, map(shutil.which, _NAMES)), None)
TIMEOUT_S = 60

# Chromium reads from its third file and writes to its fourth.
LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One tab; use it in a ``with`` statement.

    Attributes:
        requests: Every URL that the tab has requested.
        console_errors: Errors and warnings of its console.
    """

    def __init__(self, profile):
        self.requests = []
        self.console_errors = []
        self._profile = profile
        self._numbers = count(1)
        self._unread = b""
        self._session = None

    def __enter__(self):
        commands_out, self._commands = _pipe()
        self._answers, answers_in = _pipe()
        options = (
            *("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
            *("--no-first-run", "--disable-extensions", "--disable-dev-shm-usage"),
            f"--user-data-dir={self._profile}",
        )
        self._program = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(commands_out), str(answers_in), CHROMIUM, *options],
            pass_fds=(commands_out, answers_in),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(commands_out)
        os.close(answers_in)
        try:
            target = self.send("Target.createTarget", url="about:blank")["targetId"]
            session = self.send("Target.attachToTarget", targetId=target, flatten=True)
            self._session = session["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.send(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # All its processes: one that hangs would keep a core busy until the machine is shut down.
        os.killpg(self._program.pid, signal.SIGKILL)
        self._program.wait()
        os.close(self._commands)
        os.close(self._answers)

    def send(self, method, **parameters):
        """Send a command and return its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, path, *, width, height=900, is_phone=False):
        """Show a file in a window of some size, and wait until all of it is there."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if is_phone else 1,
            mobile=is_phone,
        )
        self.send("Page.navigate", url=path.as_uri())
        deadline = time.monotonic() + TIMEOUT_S
        while self.run("document.readyState") != "complete" or self.run("location.href") == (
            "about:blank"
        ):
            assert time.monotonic() < deadline, "the page does not become complete"

    def run(self, code):
        """Run JavaScript in the page and return its value."""
        answer = self.send("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def drag(self, start, end):
        """Press the mouse at one place of the window, move it to another, and let it go."""
        for kind, (x, y) in (
            ("mousePressed", start),
            ("mouseMoved", end),
            ("mouseReleased", end),
        ):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def _read(self):
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._answers], [], [], TIMEOUT_S)
            assert ready, "the browser does not answer"
            received = os.read(self._answers, 2**20)
            assert received, "the browser has ended"
            self._unread += received
        message, _, self._unread = self._unread.partition(b"\0")
        event = json.loads(message)
        self._record(event.get("method"), event.get("params", {}))
        return event

    def _record(self, method, parameters):
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.console_errors.append(parameters["exceptionDetails"]["text"])
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.console_errors.append(parameters["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            self.console_errors.append(str(parameters["args"]))


def _pipe():
    """A pipe whose ends have high numbers, so that neither can be the third or fourth file."""
    low = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in low]
    for end in low:
        os.close(end)
    return high
