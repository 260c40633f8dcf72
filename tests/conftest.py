"""Its place lets every test import `clips`, the drawing of videos, from this folder.

It also sees to it that Triton is imported as the tests of its kernels need it. What is imported
under TRITON_INTERPRET runs on the CPU, by Triton's interpreter, and other packages import Triton
by the way: so this comes before all of them, and the setting is taken back at once.
"""

import os
from importlib.util import find_spec

import torch

if find_spec("triton") and not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
    import vsrm_cli.ops.selective_scan_triton_kernels  # noqa: F401

    del os.environ["TRITON_INTERPRET"]
