"""The job of `vsrm upscale`."""
