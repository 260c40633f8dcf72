"""A worker whose disk is full, for the tests of clusters."""

import resource

from vsrm_cli.upscale.distributed.segment_worker import SegmentWorker


def open_worker(is_full_everywhere, sight, settings, device):
    """Open a worker on a node; on the first node, or on all, it can write 3 kB only."""
    sight.check(settings)
    mark = settings.dst.with_name("full")
    if is_full_everywhere or not mark.exists():
        mark.touch()
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, resource.RLIM_INFINITY))
    return SegmentWorker(settings, device)
