"""The training loop.

A network is trained in stages, each a run of this loop (see `TrainingStage`): first its optical
flow, on the true motion of synthetic clips and the frames of real ones; then single frames without
propagation, which is cheap; then whole clips. The first two can be skipped; the third also
fine-tunes finished weights on other footage. The last stage, `sharp`, adds perceptual losses.

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
from torch.utils.data import DataLoader, Subset

from vsrm_cli.data.dataset import ClipDataset
from vsrm_cli.data.footage import Footage
from vsrm_cli.data.training_batch import TrainingBatch
from vsrm_cli.errors import Interrupted, OutputError, UsageError
from vsrm_cli.evaluation.feature_networks import FeatureNetwork
from vsrm_cli.models.network import Network
from vsrm_cli.training.distributed import all_reduce_max, barrier, process_count, rank
from vsrm_cli.training.divergence_guard import DivergenceGuard
from vsrm_cli.training.perceptual.stage import PerceptualStage
from vsrm_cli.training.recipe import Recipe, TrainingStage, list_differences
from vsrm_cli.training.report import TensorBoardWriter, describe_result, report_page
from vsrm_cli.training.run_dir import RunDir
from vsrm_cli.training.step_memory import check_memory
from vsrm_cli.training.time_budget import TimeBudget
from vsrm_cli.training.trainer import Trainer
from vsrm_cli.training.validation import Pair, Validation, Validator

# More steps than any run has.
ENDLESS = 2**40


@dataclass(frozen=True)
class TrainingProgress:
    """What a run reports after each step.

    Attributes:
        step: How many steps are done.
        steps: How many there will be; None as long as that is not known.
        loss: The mean since the last line of the metrics.
        lr: Learning rate of the next step.
        steps_per_second: Lately; None at first.
        seconds_left: Until the run or its time budget ends; None if unknown.
        line: The line added to the metrics, if there is one.
        rollback: Why the run went back to an earlier state, in a sentence; None if it did not.
    """

    step: int
    steps: int | None
    loss: float
    lr: float
    steps_per_second: float | None
    seconds_left: float | None
    line: Mapping[str, float] | None = None
    rollback: str | None = None


@dataclass(frozen=True)
class TrainingResult:
    """The result of a run.

    Attributes:
        step: How many steps are done.
        steps: How many the whole run has.
        first: The validation of the weights at the start; None without validation.
        best: The validation of the weights that were kept.
    """

    step: int
    steps: int
    first: Validation | None
    best: Validation | None

    @property
    def summary(self) -> str:
        """The validations in one sentence."""
        if self.first is None or self.best is None:
            return "Nothing was validated; the last weights were kept."
        return describe_result(self.first, self.best)

    def as_dict(self) -> dict[str, Any]:
        """The result as `--json` prints it."""
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


def train(
    network: Network,
    data: Footage | Path,
    out: Path,
    recipe: Recipe,
    *,
    features: FeatureNetwork | None = None,
    validation: Mapping[str, Pair] | None = None,
    metadata: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    minutes: float = math.inf,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    report: Callable[[TrainingProgress], None] = lambda _: None,
    every: int = 10,
    validations: int = 10,
    workers: int = 1,
) -> TrainingResult:
    """Train a network. The best averaged weights, state, metrics and a report go into a folder.

    Args:
        network: Its weights at the start; changed in place.
        data: From `vsrm_cli.data.footage.open_footage`, or a pack.
        out: The folder.
        recipe: What to compute.
        features: The feature network of `TrainingStage.SHARP`; unused in other stages.
        validation: LR-HR clips by name (see `vsrm_cli.training.validation`). They are restored at
            intervals to find the best weights; without them the last weights are kept.
        metadata: Metadata of the weight file, besides the recipe.
        settings: Further settings that decide what is computed, such as the data. They must be the
            same when a run is resumed.
        minutes: Time budget. A run whose number of steps came from its time budget gets as many
            minutes again when it is resumed.
        resume: Resume the run in the folder.
        should_stop: Called after each step; if true, the state is saved and the run ends.
        report: Called after each step.
        every: Steps between two lines of the metrics.
        validations: Number of validations, evenly spread, after the one before the first step.
        workers: Processes that prepare samples.

    Raises:
        InputError: If there is no run to resume, or no clip is large enough.
        UsageError: If the run in the folder has other settings, which are listed, or the batch
            cannot be divided among the processes.
        MemoryShortage: If a step does not fit into memory.
        OutputError: If the folder holds another run, the disk is full, or the loss keeps exploding;
            the last good state and the best weights are kept.
        Interrupted: If `should_stop` returned true.
    """
    perceptual = None
    if recipe.stage is TrainingStage.SHARP:
        if features is None:
            raise ValueError("the stage sharp needs a feature network")
        perceptual = PerceptualStage(network, recipe, features.to(network.device))
    trainer = Trainer(network, recipe, perceptual)
    check_memory(trainer, recipe)
    run = _TrainingRun(
        trainer,
        RunDir(out),
        pairs=validation or {},
        metadata=metadata or {},
        settings=settings or {},
        validations=validations,
        resume=resume,
    )
    budget = TimeBudget(minutes, network.device)
    if trainer.length is None and math.isinf(minutes):
        raise ValueError("a recipe without steps needs minutes")
    is_complete = trainer.length is not None and trainer.step >= trainer.length
    # A run whose length came from its time budget can be resumed for more minutes.
    if is_complete and (recipe.steps is not None or math.isinf(minutes)):
        return run.result()
    is_planned = trainer.length is not None and not is_complete
    for batch in _batches(data, recipe, run.drawn, workers):
        if run.drawn == 0:
            with budget.untimed():
                run.validate_start(batch)
        rollback = run.advance(batch)
        budget.note_step()
        if not is_planned and (plan := budget.plan(validations)) is not None:
            more, run.validations = plan
            trainer.length = trainer.step + more
            is_planned = True
        is_stopping = all_reduce_max(should_stop(), network.device) > 0
        is_up = budget.is_up()
        is_over = is_up or (is_planned and trainer.step == trainer.length)
        if is_up and recipe.steps is None:
            trainer.length = trainer.step
        is_validation = is_over or (rollback is None and run.is_validation_due())
        line = None
        with budget.untimed():
            if is_validation or (rollback is None and trainer.step % every == 0):
                line = run.note(is_validation=is_validation)
            if budget.take_save_due() or is_validation or is_stopping:
                run.save()
        report(_progress(run, budget, line, rollback))
        if is_over:
            break
        if is_stopping:
            raise Interrupted(
                f"stopped after step {trainer.step}; the same command with --resume continues"
            )
    run.end()
    return run.result()


class _TrainingRun:
    """A run, new or resumed, and its files. Only the first process writes."""

    def __init__(
        self,
        trainer: Trainer,
        folder: RunDir,
        *,
        pairs: Mapping[str, Pair],
        metadata: Mapping[str, str],
        settings: Mapping[str, str],
        validations: int,
        resume: bool,
    ) -> None:
        recipe = trainer.recipe
        criterion = trainer.perceptual.validation_loss if trainer.perceptual else None
        self.folder, self.trainer = folder, trainer
        self.validator = Validator(pairs, recipe, criterion)
        self.guard = DivergenceGuard(self.trainer)
        self.validations = validations
        self.drawn = 0  # batches; more than steps where the run went back
        self.losses: list[float] = []  # since the last line of the metrics
        self.last_loss = math.nan
        self._discriminator_loss: float | None = None
        self._settings = {**recipe.settings(), **settings}
        self._metadata = {**metadata, "recipe": json.dumps(self._settings)}
        self._is_writer = rank() == 0
        if resume:
            self._restore(folder.read_state())
        elif self._is_writer:
            folder.begin()
        self._tensorboard = TensorBoardWriter(folder.path if self._is_writer else None)
        barrier()

    def validate_start(self, batch: TrainingBatch) -> None:
        """Validate and save the weights at the start."""
        self.last_loss = self.trainer.compute_loss(batch)
        if self._is_writer:
            if self.validator.pairs:
                self._validate()
            self.save()
            self._add_line(is_validation=bool(self.validator.pairs))

    def advance(self, batch: TrainingBatch) -> str | None:
        """Do a step, or roll back after a loss spike; returns what happened in that case."""
        self.drawn += 1
        losses = self.trainer.compute_gradients(batch)
        if self.guard.accept(losses):
            self.trainer.update_weights(losses)
            self.guard.note_step()
            self.losses.append(losses.loss)
            self._discriminator_loss = losses.discriminator
            return None
        try:
            rollback = self.guard.roll_back()
        except OutputError:
            self.save()
            self.end()
            raise
        self.losses.clear()
        if self._is_writer:
            self.folder.forget_after(self.trainer.step)
        return rollback

    def is_validation_due(self) -> bool:
        """Whether one of the evenly spread validations is due."""
        length = self.trainer.length
        return length is not None and self.trainer.step % max(1, length // self.validations) == 0

    def note(self, *, is_validation: bool) -> dict[str, float] | None:
        """Validate if asked to, and add a line to the metrics."""
        if self.losses:
            self.last_loss = sum(self.losses) / len(self.losses)
            self.losses.clear()
        if not self._is_writer:
            return None
        is_validation = is_validation and bool(self.validator.pairs)
        if is_validation:
            self._validate()
        return self._add_line(is_validation=is_validation)

    def save(self) -> None:
        """Save everything needed to resume."""
        if not self._is_writer:
            return
        if not self.validator.pairs:
            self.folder.write_weights(self.trainer.average, self._metadata)
        self.folder.write_state(
            {
                "settings": self._settings,
                "learner": self.trainer.state_dict(),
                "guard": self.guard.state_dict(),
                "judge": self.validator.state_dict(),
                "validations": self.validations,
                "drawn": self.drawn,
                "losses": self.losses,
                "last_loss": self.last_loss,
            }
        )

    def end(self) -> None:
        """Write the report; all files are complete for every process when this returns."""
        if self._is_writer:
            validator = self.validator
            page = report_page(
                self.folder.path.absolute().name,
                self.folder.lines(),
                first=validator.first,
                best=validator.best,
                latest=validator.latest,
                crops=validator.crops,
                settings=self._settings,
            )
            self.folder.write_report(page)
            self._tensorboard.close()
        barrier()

    def result(self) -> TrainingResult:
        """The result of the run so far."""
        step, validator = self.trainer.step, self.validator
        return TrainingResult(step, self.trainer.length or step, validator.first, validator.best)

    def _validate(self) -> None:
        if self.validator.validate(self.trainer.average, self.trainer.step):
            self.folder.write_weights(self.trainer.average, self._metadata)
        if self.validator.latest is not None:
            self._tensorboard.add_images(self.validator.crops, self.validator.latest)

    def _add_line(self, *, is_validation: bool) -> dict[str, float]:
        line = {
            "step": self.trainer.step,
            "loss": self.last_loss,
            "lr": self.trainer.learning_rate(),
        }
        if self._discriminator_loss is not None:
            line["discriminator_loss"] = self._discriminator_loss
        if is_validation and self.validator.latest is not None:
            line["val_loss"] = self.validator.latest.loss
            line["val_psnr_y"] = self.validator.latest.psnr_y
        self.folder.add_line(line)
        self._tensorboard.add_line(line)
        return line

    def _restore(self, state: dict[str, Any]) -> None:
        changed = list_differences(state["settings"], self._settings)
        if changed:
            raise UsageError(
                f"The run in {self.folder.path} has other settings ({'; '.join(changed)}): give "
                f"the same ones with --resume, or another --out."
            )
        self.trainer.load_state_dict(state["learner"])
        self.guard = DivergenceGuard(self.trainer)
        self.guard.load_state_dict(state["guard"])
        self.validator.load_state_dict(state["judge"])
        self.drawn, self.last_loss = state["drawn"], state["last_loss"]
        self.validations = state["validations"]
        self.losses = list(state["losses"])
        if self._is_writer:
            # A run killed during its start has a line of step 0 to remove as well.
            self.folder.forget_after(self.trainer.step if self.drawn else -1)


def _batches(
    data: Footage | Path, recipe: Recipe, start: int, workers: int
) -> Iterator[TrainingBatch]:
    """This process's share of each batch, prepared by worker processes."""
    processes, shape = process_count(), recipe.shape
    if shape.batch % processes:
        raise UsageError(
            f"{processes} processes cannot share a batch of {shape.batch} clips evenly; give a "
            f"--batch that is a multiple of {processes}."
        )
    clips = ClipDataset(
        data,
        replace(shape, batch=shape.batch // processes),
        steps=ENDLESS,
        seed=recipe.seed,
        share=rank(),
        degradation=recipe.degradation,
    )
    loader = DataLoader(
        Subset(clips, range(start, ENDLESS)),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_set_up_worker,
    )
    with _freeze_objects():
        batches = iter(loader)
    yield from batches


@contextmanager
def _freeze_objects() -> Iterator[None]:
    """Keep the garbage collector of a forked worker away from existing objects.

    Freeing a decoder there would wait forever for threads that only the parent has.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _set_up_worker(_: int) -> None:
    """Give a worker one thread, and leave Ctrl-C to the training process."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _progress(
    run: _TrainingRun, budget: TimeBudget, line: Mapping[str, float] | None, rollback: str | None
) -> TrainingProgress:
    trainer, losses = run.trainer, run.losses
    # A run resumed past its end does not know its new length at once.
    length = trainer.length if trainer.step <= (trainer.length or 0) else None
    more = None if length is None else length - trainer.step
    return TrainingProgress(
        step=trainer.step,
        steps=length,
        loss=sum(losses) / len(losses) if losses else run.last_loss,
        lr=trainer.learning_rate(),
        steps_per_second=budget.steps_per_second(),
        seconds_left=budget.seconds_left(more),
        line=line,
        rollback=rollback,
    )
