"""Compile the Triton kernels for an H100, which needs no GPU; print the name of each.

Triton's interpreter lets pass what its compiler does not. This runs in a process of its own,
because kernels are either interpreted or compiled from their import on.
"""

from triton import compile as compile_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vsrm_cli.ops.selective_scan_triton import BLOCK, CHUNK, GROUP, TILE
from vsrm_cli.ops.selective_scan_triton_kernels import (
    carry,
    run_states,
    write_gradients,
    write_outputs,
)

TOKENS = ("value", "gate", "weights", "u", "z", "delta", "B", "C", "y", "dy", "du", "dz", "ddelta")
INTEGERS = ("length", "chunks", "tiles", "pairs", "channels", "states")
SIZES = {"CHUNK": CHUNK, "TILE": TILE, "GROUP": GROUP, "BLOCK": BLOCK, "N": 16}


def compiled(kernel, dtype, **constants):
    """Compile for tokens of a type and dense rows, with some arguments constant (None: absent)."""
    given = {**SIZES, **constants}
    fixed, signature = {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in given:
            fixed[place,] = given[name]
            signature[name] = "constexpr"
        elif name.endswith("_strides"):
            fixed[place, 2] = 1
            signature[name] = ("i32", "i32", "constexpr")
        elif name in INTEGERS:
            signature[name] = "i32"
        else:
            signature[name] = dtype if name in TOKENS else "*fp32"
    source = ASTSource(kernel, signature, fixed)
    return compile_kernel(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1})


def absent(*names):
    return {**dict.fromkeys(names), **{f"{name}_strides": None for name in names if name in TOKENS}}


for dtype, kind, missing in (
    ("*bf16", {"SOFTPLUS": True, "REVERSE": False}, ()),
    ("*fp32", {"SOFTPLUS": False, "REVERSE": True}, ("z", "dz", "D", "bias")),
):
    for kernel, constants in (
        (run_states, {"ADJOINT": False, **absent("gate", "starts", "kept")}),
        (carry, {"ADJOINT": True}),
        (write_outputs, {}),
        (write_gradients, {}),
    ):
        compiled(kernel, dtype, **kind, **absent(*missing), **constants)
        print(kernel.__name__)  # noqa: T201
