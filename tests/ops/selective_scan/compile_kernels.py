"""Compile the Triton kernels for an H100 as the scan calls them; print their names. Needs no GPU.

Triton's interpreter lets pass what its compiler does not. This runs in a process of its own,
because kernels are either interpreted or compiled from their import on.
"""

import torch
import triton
from triton.backends.compiler import GPUTarget

from vsrm_cli.ops import fused_triton as fused
from vsrm_cli.ops.selective_scan import triton_gpu as scan


class NoGpu:
    """What Triton asks about the GPU before it compiles."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


class CompiledOnly:
    """Stands in for a kernel: compiles it for its arguments, and does not run it."""

    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        def call(*arguments, **options):
            binary = self.kernel.warmup(*arguments, grid=grid, **options)
            assert "cubin" in binary.asm
            # What lanes pass to one another through shared memory would slow each token down.
            assert binary.metadata.shared == 0
            print(self.kernel.__name__)  # noqa: T201

        return call


def scan_and_gradients(dtype, *, has_options, reverse):
    """Call all kernels: with dense tokens and all options, or without any, channels first."""
    batch, length, channel, state = 1, 300, 96, 16

    def tokens(width):
        if has_options:
            return torch.randn(batch, length, width, dtype=dtype)
        return torch.randn(batch, width, length, dtype=dtype).transpose(1, 2)

    per_channel = torch.randn(channel) if has_options else None
    other = tokens(channel) if has_options else None
    y = scan.selective_scan_triton(
        tokens(channel).requires_grad_(),
        tokens(channel),
        -torch.rand(channel, state),
        tokens(state),
        tokens(state),
        per_channel,
        other,
        per_channel,
        other,
        delta_softplus=has_options,
        reverse=reverse,
    )
    y.sum().backward()


triton.runtime.driver.set_active(NoGpu())
for name in ("run_states", "carry", "write_outputs", "write_gradients"):
    setattr(scan, name, CompiledOnly(getattr(scan, name)))
scan_and_gradients(torch.bfloat16, has_options=True, reverse=False)
scan_and_gradients(torch.float32, has_options=False, reverse=True)
for name in ("convolve", "convolve_clip", "gather"):
    setattr(fused, name, CompiledOnly(getattr(fused, name)))
tokens, picture = torch.randn(1, 300, 96).half(), torch.randn(1, 96, 20, 30).half()
fused.causal_conv_triton(tokens, torch.randn(96, 1, 4).half(), torch.randn(96).half(), reverse=True)
clip, taps = torch.randn(1, 3, 9, 16, 200).half(), torch.randn(200, 1, 3, 3, 3).half()
fused.depthwise_conv_triton(clip, taps, torch.randn(200).half())
fused.sample_tokens_triton(picture, torch.randn(1, 4, 2, 20, 30))
