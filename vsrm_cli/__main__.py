"""`python -m vsrm_cli`, and what the installed command `vsrm` runs."""

import os
import sys

# Set before torch is imported. Threads that wait for work sleep instead of spinning: decoder,
# network and encoder share the cores, and a spinning thread keeps another stage from its own.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from vsrm_cli.cli import app
from vsrm_cli.cli.failures import EXIT_FAILED, EXIT_INTERRUPTED


def main() -> None:
    """Run the command line that the program was started with, and exit with its code."""
    try:
        code = app.run()
        if sys.stdout is not None:  # it is None where stdout was closed from the start
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read stdout has gone. Python would flush it once more at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    main()
