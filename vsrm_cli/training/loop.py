"""The training loop, whole, in one place.

A network is taught in three stages, each a run of this loop: to see motion (`Stage.FLOW`, from
the true motion of synthetic clips and from the frames of real ones), to enlarge frames past the
branches (`Stage.FRAMES`, cheap), and to restore clips (`Stage.CLIPS`). The first two may be
skipped; the last one is also what adapts finished weights to other footage.

Several processes started by torchrun share each batch and average their gradients.
"""

import gc
import json
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from vsrm_cli.data.dataset import Clips
from vsrm_cli.data.footage import Footage
from vsrm_cli.data.sample import Sample
from vsrm_cli.errors import Interrupted, OutputError, UsageError
from vsrm_cli.evaluation.feature_networks import FeatureNetwork
from vsrm_cli.models.network import Network
from vsrm_cli.training.distributed import all_reduce_max, barrier, process_count, rank
from vsrm_cli.training.divergence_guard import DivergenceGuard
from vsrm_cli.training.perceptual.stage import PerceptualStage
from vsrm_cli.training.recipe import Recipe, Stage, differences
from vsrm_cli.training.report import TensorBoardWriter, outcome, report_page
from vsrm_cli.training.run_dir import RunDir
from vsrm_cli.training.step_memory import check_memory
from vsrm_cli.training.time_budget import TimeBudget
from vsrm_cli.training.trainer import Trainer
from vsrm_cli.training.validation import Pair, Validation, Validator

# More samples than any run draws.
ENDLESS = 2**40


@dataclass(frozen=True)
class Progress:
    """What a run tells after each step.

    Attributes:
        step: How many steps are done.
        steps: How many there will be; None as long as that is not known.
        loss: The mean since the last line of the metrics.
        lr: Learning rate of the next step.
        steps_per_second: Lately; None at first.
        seconds_left: Until the end of the run, or of its time.
        line: What was added to the metrics; None where nothing was.
        accident: What went wrong and was put right, in a sentence.
    """

    step: int
    steps: int | None
    loss: float
    lr: float
    steps_per_second: float | None
    seconds_left: float | None
    line: Mapping[str, float] | None = None
    accident: str | None = None


@dataclass(frozen=True)
class Result:
    """What a run has come to.

    Attributes:
        step: How many steps are done.
        steps: How many the whole run has.
        first: The validation of the weights at the start; None where nothing was validated.
        best: That of the weights that were kept.
    """

    step: int
    steps: int
    first: Validation | None
    best: Validation | None

    @property
    def told(self) -> str:
        """What the validations say, in a sentence."""
        if self.first is None or self.best is None:
            return "Nothing was validated; the last weights were kept."
        return outcome(self.first, self.best)

    def as_dict(self) -> dict[str, Any]:
        """The figures, as `--json` prints them."""
        figures: dict[str, Any] = {"step": self.step, "steps": self.steps}
        if self.first is not None and self.best is not None:
            figures |= {
                "best_step": self.best.step,
                "val_loss_before": self.first.loss,
                "val_loss": self.best.loss,
                "val_psnr_y_bicubic": self.best.bicubic,
                "val_psnr_y_before": self.first.psnr_y,
                "val_psnr_y": self.best.psnr_y,
            }
        return figures


def finetune(
    network: Network,
    data: Footage | Path,
    out: Path,
    recipe: Recipe,
    *,
    features: FeatureNetwork | None = None,
    validation: Mapping[str, Pair] | None = None,
    words: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    minutes: float = math.inf,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    report: Callable[[Progress], None] = lambda _: None,
    every: int = 10,
    validations: int = 10,
    workers: int = 1,
) -> Result:
    """Train a network, into a folder: the best averaged weights, state, metrics and a report.

    Args:
        network: Where to start; changed in place.
        data: What `vsrm_cli.data.footage.open_footage` found, or a pack.
        out: The folder.
        recipe: What to compute.
        features: What `Stage.SHARP` sees frames with; without effect in others.
        validation: Clips by name, small and sharp (see `vsrm_cli.training.validation`), which are
            restored now and then to find out which weights are the best; without them the last
            ones are kept.
        words: What the weight file is to say about itself besides the recipe.
        settings: What else decides what is computed, such as the data: a run that goes on must
            have the same.
        minutes: Stop after this time; a run that is resumed goes on from there, and for so long
            if its steps were decided by a time that is over.
        resume: Go on with the run in the folder.
        should_stop: Asked after each step; if so, the state is saved and the run ends.
        report: Told after each step.
        every: Steps between two lines of the metrics.
        validations: How many times to validate, evenly, after the one before the first step.
        workers: Processes that prepare samples.

    Raises:
        InputError: If there is nothing to go on from, or no clip is large enough.
        UsageError: If the run in the folder has other settings, which are listed, or the batch
            cannot be shared by the processes.
        MemoryShortage: If a step does not fit into the memory.
        OutputError: If the folder holds a run that shall not go on, the disk is full, or the loss
            exploded again and again; the last good state and the best weights are kept.
        Interrupted: If `should_stop` said so.
    """
    perceptual = None
    if recipe.stage is Stage.SHARP:
        if features is None:
            raise ValueError("the stage sharp needs a feature network")
        perceptual = PerceptualStage(network, recipe, features.to(network.device))
    learner = Trainer(network, recipe, perceptual)
    run = _Run(learner, RunDir(out), validation or {}, words or {}, settings or {})
    run.validations = validations
    check_memory(run.learner, recipe)
    run.begin(resume=resume)
    clock = TimeBudget(minutes, network.device)
    if learner.length is None and math.isinf(minutes):
        raise ValueError("a recipe without steps needs minutes")
    # A run whose length its time has decided goes on for more time, if that is asked for.
    is_planned = learner.length is not None
    if is_planned and learner.step >= (learner.length or 0):
        if recipe.steps is not None or math.isinf(minutes):
            return run.result()
        is_planned = False
    for sample in _samples(data, recipe, run.drawn, workers):
        if run.drawn == 0:
            with clock.aside():
                run.look_at_start(sample)
        accident = run.advance(sample)
        clock.note_step()
        if not is_planned and (plan := clock.plan(validations)) is not None:
            more, run.validations = plan
            learner.length = learner.step + more
            is_planned = True
        is_asked = all_reduce_max(should_stop(), network.device) > 0
        is_up = clock.is_up()
        is_over = is_up or (is_planned and learner.step == learner.length)
        if is_up and recipe.steps is None:
            learner.length = learner.step
        is_look = is_over or (accident is None and run.is_look_due())
        line = None
        with clock.aside():
            if is_look or (accident is None and learner.step % every == 0):
                line = run.note(is_look=is_look)
            if clock.is_save_due() or is_look or is_asked:
                run.save()
        report(_progress(run, clock, line, accident))
        if is_over:
            break
        if is_asked:
            raise Interrupted(
                f"stopped after step {learner.step}; the same command with --resume continues"
            )
    run.end()
    return run.result()


class _Run:
    """What a run consists of, and what is kept of it. Only the first process writes."""

    def __init__(
        self,
        learner: Trainer,
        folder: RunDir,
        pairs: Mapping[str, Pair],
        words: Mapping[str, str],
        settings: Mapping[str, str],
    ) -> None:
        recipe = learner.recipe
        criterion = learner.perceptual.validation_loss if learner.perceptual else None
        self.folder, self.learner = folder, learner
        self.judge = Validator(pairs, recipe, criterion)
        self.guard = DivergenceGuard(self.learner)
        self.validations = 1
        self.drawn = 0  # samples; more than there are steps, if any had to be done again
        self.losses: list[float] = []  # since the last line of the metrics
        self.last_loss = math.nan
        self._settings = {**recipe.settings(), **settings}
        self._words = {**words, "recipe": json.dumps(self._settings)}
        self._is_writer = rank() == 0
        self._board = TensorBoardWriter(None)

    def begin(self, *, resume: bool) -> None:
        """Make the folder, or take from it what an earlier call has left there."""
        if resume:
            self._restore(self.folder.read_state())
        elif self._is_writer:
            self.folder.begin()
        if self._is_writer:
            self._board = TensorBoardWriter(self.folder.path)
        barrier()

    def look_at_start(self, sample: Sample) -> None:
        """Validate what the run begins with, and keep it."""
        self.last_loss = self.learner.measure(sample)
        if self._is_writer:
            if self.judge.pairs:
                self._look()
            self.save()
            self._add_line(is_look=bool(self.judge.pairs))

    def advance(self, sample: Sample) -> str | None:
        """Do a step; where it cannot be trusted, go back instead, and say so."""
        self.drawn += 1
        lesson = self.learner.learn(sample)
        if self.guard.trusts(lesson):
            self.learner.apply()
            self.guard.note_step()
            self.losses.append(lesson.loss)
            return None
        try:
            accident = self.guard.go_back()
        except OutputError:
            self.save()
            self.end()
            raise
        self.losses.clear()
        if self._is_writer:
            self.folder.forget_after(self.learner.step)
        return accident

    def is_look_due(self) -> bool:
        """Whether it is time for one of the validations, which are spread over all steps."""
        length = self.learner.length
        return length is not None and self.learner.step % max(1, length // self.validations) == 0

    def note(self, *, is_look: bool) -> dict[str, float] | None:
        """Validate, if it is time for that, and add a line to the metrics."""
        if self.losses:
            self.last_loss = sum(self.losses) / len(self.losses)
            self.losses.clear()
        if not self._is_writer:
            return None
        is_look = is_look and bool(self.judge.pairs)
        if is_look:
            self._look()
        return self._add_line(is_look=is_look)

    def save(self) -> None:
        """Keep all that a later call needs to go on."""
        if not self._is_writer:
            return
        if not self.judge.pairs:
            self.folder.write_weights(self.learner.average, self._words)
        self.folder.write_state(
            {
                "settings": self._settings,
                "learner": self.learner.state(),
                "guard": self.guard.state(),
                "judge": self.judge.state(),
                "validations": self.validations,
                "drawn": self.drawn,
                "losses": self.losses,
                "last_loss": self.last_loss,
            }
        )

    def end(self) -> None:
        """Write the report; when this returns, all files are there for every process."""
        if self._is_writer:
            judge = self.judge
            page = report_page(
                self.folder.path.absolute().name,
                self.folder.lines(),
                first=judge.first,
                best=judge.best,
                latest=judge.latest,
                pieces=judge.pieces,
                settings=self._settings,
            )
            self.folder.write_report(page)
            self._board.close()
        barrier()

    def result(self) -> Result:
        """What the run has come to."""
        step, judge = self.learner.step, self.judge
        return Result(step, self.learner.length or step, judge.first, judge.best)

    def _look(self) -> None:
        if self.judge.look(self.learner.average, self.learner.step):
            self.folder.write_weights(self.learner.average, self._words)
        if self.judge.latest is not None:
            self._board.add_pictures(self.judge.pieces, self.judge.latest)

    def _add_line(self, *, is_look: bool) -> dict[str, float]:
        line = {"step": self.learner.step, "loss": self.last_loss, "lr": self.learner.rate()}
        if self.learner.discriminator_loss is not None:
            line["discriminator_loss"] = self.learner.discriminator_loss
        if is_look and self.judge.latest is not None:
            line["val_loss"] = self.judge.latest.loss
            line["val_psnr_y"] = self.judge.latest.psnr_y
        self.folder.add_line(line)
        self._board.add_line(line)
        return line

    def _restore(self, state: dict[str, Any]) -> None:
        changed = differences(state["settings"], self._settings)
        if changed:
            raise UsageError(
                f"The run in {self.folder.path} has other settings ({'; '.join(changed)}): give "
                f"the same ones with --resume, or another --out."
            )
        self.learner.restore(state["learner"])
        self.guard = DivergenceGuard(self.learner)
        self.guard.restore(state["guard"])
        self.judge.restore(state["judge"])
        self.drawn, self.last_loss = state["drawn"], state["last_loss"]
        self.validations = state["validations"]
        self.losses = list(state["losses"])
        if self._is_writer:
            # Of a run that was killed amid its beginning, the line of step 0 as well.
            self.folder.forget_after(self.learner.step if self.drawn else -1)


class _From(Dataset[Sample]):
    """A data set without its first items."""

    def __init__(self, clips: Clips, start: int) -> None:
        self.clips, self.start = clips, start

    def __len__(self) -> int:
        return len(self.clips) - self.start

    def __getitem__(self, index: int) -> Sample:
        return self.clips[self.start + index]


def _samples(data: Footage | Path, recipe: Recipe, start: int, workers: int) -> Iterator[Sample]:
    """This process's share of each batch, made by processes of their own."""
    processes, shape = process_count(), recipe.shape
    if shape.batch % processes:
        raise UsageError(
            f"{processes} processes cannot share a batch of {shape.batch} clips evenly; give a "
            f"--batch that is a multiple of {processes}."
        )
    clips = Clips(
        data,
        replace(shape, batch=shape.batch // processes),
        steps=ENDLESS,
        seed=recipe.seed,
        share=rank(),
        degradation=recipe.degradation,
    )
    loader = DataLoader(
        _From(clips, start),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_calm,
    )
    with _left_to_the_parent():
        samples = iter(loader)
    yield from samples


@contextmanager
def _left_to_the_parent() -> Iterator[None]:
    """Keep the garbage collector of a forked worker off the objects that exist already.

    A decoder that it frees would wait for threads that only the parent has, forever.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _calm(_: int) -> None:
    """Set up a process that makes samples: one thread, and Ctrl-C is for the one that trains."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _progress(
    run: _Run, clock: TimeBudget, line: Mapping[str, float] | None, accident: str | None
) -> Progress:
    learner, losses = run.learner, run.losses
    # A run that trains on after its end does not know its new length at once.
    length = learner.length if learner.step <= (learner.length or 0) else None
    more = None if length is None else length - learner.step
    return Progress(
        step=learner.step,
        steps=length,
        loss=sum(losses) / len(losses) if losses else run.last_loss,
        lr=learner.rate(),
        steps_per_second=clock.steps_per_second(),
        seconds_left=clock.seconds_left(more),
        line=line,
        accident=accident,
    )
