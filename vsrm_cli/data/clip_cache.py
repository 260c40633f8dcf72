"""The clip cache: a few runs of frames in memory, from which the clips of a step are cut.

Seeking and decoding cost more than cutting a clip. So only a few runs of large footage are in use
at a time, each for some steps, and several clips are cut from each. Which runs are in use depends
on the seed and the step alone; the cache saves time and does not change results.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from vsrm_cli.data.crops import CropBox
from vsrm_cli.data.sources import FootageSource, FrameRun
from vsrm_cli.errors import InputError
from vsrm_cli.frame import SCALE

SLOTS = 24
# The run of each slot is replaced after this many steps, one slot after the other.
STEPS_IN_USE = 96
# Frames and pixels of a run beyond those of a clip: several different clips can be cut from it.
MORE_FRAMES, MORE_PIXELS = 4, 2.5
# Runs are cropped to a smaller size if they would be larger than this.
RUN_BYTES = 10 << 20
CACHE_BYTES = SLOTS * RUN_BYTES
# How many damaged places and scene cuts are skipped before giving up.
_ATTEMPTS = 32


class ClipCache:
    """Runs of frames that are replaced slowly.

    Args:
        sources: Their sources; either all photos or all clips.
        frames: Minimum length of a run.
        side: Of the patches that are cut from it, in HR pixels.
        seed: Decides which runs are in use.
    """

    def __init__(
        self, sources: Sequence[FootageSource], *, frames: int, side: int, seed: Sequence[int]
    ) -> None:
        """Prepare; nothing is read yet."""
        self._sources = tuple(sources)
        self._frames, self._side, self._seed = frames, side, tuple(seed)
        self._is_in_memory = all(source.is_in_memory for source in sources)
        # Every frame of the footage has the same probability.
        weights = np.array([source.frames for source in sources], float)
        self._odds = weights / weights.sum() if len(weights) else weights
        self._cache: OrderedDict[tuple[int, int], FrameRun] = OrderedDict()

    def __len__(self) -> int:
        """Number of runs in use: all, if they are in memory anyway."""
        return len(self._sources) if self._is_in_memory else SLOTS

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._sources)

    def __getstate__(self) -> dict[str, Any]:
        """Everything except the cache: a worker starts with an empty one."""
        return {**self.__dict__, "_cache": OrderedDict()}

    def take(self, number: int, step: int) -> FrameRun:
        """One of the runs that are in use in a step.

        Raises:
            InputError: If none of the places that were tried could be read.
        """
        if self._is_in_memory:
            stored = self._sources[number]
            return cast(FrameRun, stored.read(0, stored.frames, CropBox(0, 0, *stored.size)))
        generation = (step + number * STEPS_IN_USE // SLOTS) // STEPS_IN_USE
        key = (number, generation)
        if key not in self._cache:
            self._cache[key] = self._read(key)
        self._cache.move_to_end(key)
        while len(self._cache) > 1 and sum(r.bytes for r in self._cache.values()) > CACHE_BYTES:
            self._cache.popitem(last=False)
        return self._cache[key]

    def _read(self, key: tuple[int, int]) -> FrameRun:
        for attempt in range(_ATTEMPTS):
            rng = np.random.default_rng([*self._seed, *key, 1 + attempt])
            source = self._sources[rng.choice(len(self._sources), p=self._odds)]
            count = min(self._frames + MORE_FRAMES, source.frames)
            first = int(rng.integers(source.frames - count + 1))
            run = source.read(first, count, self._choose_box(source, rng))
            if run is not None:
                return run
        raise InputError(
            f"Of {_ATTEMPTS} places in the footage, the last in {source.name}, none could be read; "
            f"check that the files still exist and are complete."
        )

    def _choose_box(self, source: FootageSource, rng: np.random.Generator) -> CropBox:
        """A crop of large frames, aligned to LR pixels; photos are not cropped."""
        if source.frames == 1:
            return CropBox(0, 0, *source.size)
        frames = self._frames + MORE_FRAMES
        affordable = math.sqrt(RUN_BYTES / (3 * frames))
        side = max(self._side, int(min(MORE_PIXELS * self._side, affordable)) // SCALE * SCALE)
        height, width = (min(side, length) for length in source.size)
        top, left = (
            SCALE * int(rng.integers((length - part) // SCALE + 1))
            for length, part in zip(source.size, (height, width), strict=True)
        )
        return CropBox(top, left, height, width)
