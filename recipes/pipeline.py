"""`run`: the pipeline from data to a verified int8 file, the same for all tasks.

Read, build, train the float model stage by stage, copy it in float32, calibrate and quantize,
train the int8 model, convert, evaluate, report. Finished steps are stored in the run folder: after
an interruption the same call resumes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras

import kzoo
from kzoo.files import finite, save_model, write_json
from kzoo.quantization.read import names_of
from kzoo.recipes import distributed as distribute
from kzoo.recipes import progress
from kzoo.recipes.data.augmentation.mirroring import why_not_mirrored
from kzoo.recipes.data.images import decoded_once, forget_training_images
from kzoo.recipes.evaluation.evaluate import evaluate
from kzoo.recipes.evaluation.report import write_report
from kzoo.recipes.evaluation.results import has_ended, read_results
from kzoo.recipes.inputs import STAGES
from kzoo.recipes.inspection.inspection import summary
from kzoo.recipes.options import configured
from kzoo.recipes.task import Run, Task
from kzoo.recipes.training.checkpoints import Row
from kzoo.recipes.training.display import StageDisplay, fallen_behind, stage_displays
from kzoo.recipes.training.int8 import divergence, fit_int8, for_calibration
from kzoo.recipes.training.memory import release_freed_memory, require_memory
from kzoo.recipes.training.run_folder import open_run, working_on
from kzoo.recipes.training.stages import TrainingStage, finished_stage, fit, unfreeze
from kzoo.recipes.training.user_callbacks import Callbacks, checked_callbacks, with_tensorboard
from kzoo.tflite.convert.converter import STEPS

Planned = tuple[TrainingStage, Path, StageDisplay]  # (stage, path of its model, its display)


def train(task: Task, data: str | Path, callbacks: Callbacks, options: Mapping[str, Any]) -> Any:
    """Return the results of `run`; raise TypeError, with the nearest name, for unknown options."""
    config: Any = configured(task.name, task.Config, data=str(data), **options)
    return run(task, config, callbacks=callbacks)


def run(task: Task, config: Any, *, callbacks: Callbacks = ()) -> Any:
    """Train, quantize and verify a model as configured; return the task's RunResults.

    config: an instance of the task's Config.
    callbacks: Keras callbacks for every stage, or a function of the stage's name ("head", "whole",
        "qat") that returns them.

    Raises ValueError for unusable data or settings.
    """
    theirs = with_tensorboard(checked_callbacks(callbacks), config.tensorboard)
    first = distribute.first  # called only after the processes have joined
    with progress.quiet(config.quiet), config.joined(), progress.quiet(not first()):
        dataset = task.read_dataset(config.data, vars(config))
        progress.show(summary(dataset, config.data, task.name, config.size))
        config = with_mirroring(config, dataset.labels)
        keras.utils.set_random_seed(config.seed)
        keras.config.set_dtype_policy(config.precision)
        model = task.build(config, dataset)
        require_memory(model, config.step, config.size)
        names_of(model, config.keep_float)  # reports unknown layers before training
        splits = (task.sources(split) for split in (dataset.train, dataset.val))
        targets = (task.targets(split) for split in (dataset.train, dataset.val))
        folder = open_run(config, dataset.labels, *splits, targets=targets)
        with working_on(folder), decoded_once():
            return carry_out(Run(task, vars(config), dataset, folder, config), model, theirs)


def carry_out(this: Run, model: keras.Model, theirs: Callbacks) -> Any:
    """Do the remaining steps of a run, from its first stage to its report; return its results."""
    progress.show(f"The run folder is {this.folder}")
    if distribute.agreed(has_ended(this)):
        progress.show("It has ended before: these are its results. kzoo evaluate measures it anew")
        return read_results(this.folder, this.task.report.Results)
    stages, last = planned(this)
    in_float = [one for one in stages if not one[0].quantized]
    model, history = train_float(this, model, in_float, theirs)
    in_int8 = [one for one in stages if one[0].quantized]
    int8, rows = quantize(this, model, in_int8, theirs)
    forget_training_images(this.size)
    release_freed_memory()
    progress.show(last)
    return finish(this, model, int8, history + rows)


def with_mirroring(config: Any, labels: Sequence[str]) -> Any:
    """Return the config with `flip` set; None is replaced according to the classes' names."""
    if config.flip is not None:
        return config
    reason = why_not_mirrored(labels)
    if reason:
        progress.show(f"Images are not mirrored: {reason}. Pass --flip if that is wrong")
    return dataclasses.replace(config, flip=reason is None)


def planned(this: Run) -> tuple[list[Planned], str]:
    """Return (the stages of a run with at least one epoch, the line to show after them)."""
    stages = [
        (one, this.checkpoints / f"{i}-{one.stage.name}.keras")
        for i, one in enumerate(this.task.stages(this), 1)
        if one.stage.epochs
    ]
    if distribute.first():
        this.checkpoints.mkdir(exist_ok=True)
        write_json(this.checkpoints / STAGES, [one.stage.name for one, _ in stages])
    displays, last = stage_displays(
        [one.stage for one, _ in stages], last="int8 file, measured against the float model"
    )
    return [(*pair, display) for pair, display in zip(stages, displays, strict=True)], last


def train_float(
    this: Run, model: keras.Model, stages: Sequence[Planned], callbacks: Any
) -> tuple[keras.Model, list[Row]]:
    """Train the float model and write model.keras; return (model in float32, history)."""
    trained = []
    for one, path, display in stages:
        trainer = partial(fit, folder=this.checkpoints, display=display, callbacks=callbacks)
        model, rows = finished_stage(
            path, partial(one.train, model, one.stage, trainer), display=display
        )
        trained.append((one.stage, rows))
        release_freed_memory()  # of the model before: nothing refers to it now
    if remark := fallen_behind(trained):
        progress.show(remark)
    keras.config.set_dtype_policy("float32")  # quantization and the file need float32
    model = this.task.float_copy(this, model)
    unfreeze(model)  # for further training by the user
    if distribute.first():
        save_model(model, this.model)
    return model, [row for _, rows in trained for row in rows]


def quantize(
    this: Run, model: keras.Model, stages: Sequence[Planned], callbacks: Any
) -> tuple[keras.Model | Path, list[Row]]:
    """Calibrate, quantize and train further; return (int8 model, or its file, history)."""
    made = this.task.int8_file(this)
    if made:
        return made
    int8 = calibrated(this, model)
    release_freed_memory()
    history: list[Row] = []
    for one, path, display in stages:
        trainer = partial(
            fit_int8, folder=this.checkpoints, teacher=model, display=display,
            image_quality=this.task.image_quality, always=this.config.qat == "always",
            callbacks=callbacks,
        )  # fmt: skip
        int8, rows = finished_stage(
            path, partial(one.train, int8, one.stage, trainer), display=display
        )
        history += rows
    return int8, history


def calibrated(this: Run, model: keras.Model) -> keras.Model:
    """Return the model quantized by calibration; the images are freed before training begins."""
    images = for_calibration(this.train, this.size, seed=this.config.seed)
    with progress.bar("calibrating and quantizing", None):
        int8 = kzoo.quantize(model, calibration=images, keep_float=this.config.keep_float)
    if remark := divergence(int8, this.config.learning_rate):
        progress.show(remark)
    return int8


def finish(this: Run, model: keras.Model, int8: keras.Model | Path, history: list[Row]) -> Any:
    """Write the .tflite file and the report in the first process; return the results in all."""
    if distribute.first():
        write_json(this.folder / "history.json", finite(history))
        if isinstance(int8, keras.Model):
            with progress.bar("converting", len(STEPS)) as bar:
                this.task.write_file(this, int8, lambda step: bar.advance(description=step))
        results = write_report(this, evaluate(this, model), history)
        distribute.together()
        return results
    distribute.together()
    return read_results(this.folder, this.task.report.Results)
