"""The user's Keras callbacks in a run, and TensorBoard's.

A stage calls fit for each epoch, so that it can resume anywhere. A callback sees a single fit: it
begins and ends once, and the logs of an epoch include all figures, such as "val_map".
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras

from kzoo.recipes import distributed as distribute

CallbackList = Sequence[keras.callbacks.Callback]
Callbacks = CallbackList | Callable[[str], CallbackList]  # a list, or a function of stage names


def checked_callbacks(callbacks: Callbacks) -> Callable[[str], CallbackList]:
    """Return the callbacks of a stage as a function of its name; None stands for none.

    Raises ValueError for objects that are not Keras callbacks.
    """

    def checked(given: Any) -> CallbackList:
        found = () if given is None else tuple(given) if isinstance(given, Iterable) else (given,)
        wrong = [one for one in found if not isinstance(one, keras.callbacks.Callback)]
        if wrong or isinstance(given, keras.callbacks.Callback):
            raise ValueError(
                "callbacks must be a list of keras.callbacks.Callback objects, or a function of "
                f"the stage's name that returns one. Received: {(wrong or [given])[0]!r}"
            )
        return found

    if callable(callbacks):
        return lambda stage: checked(callbacks(stage))
    found = checked(callbacks)  # now, not after the first stage, and once: of an iterator too
    return lambda stage: found


def no_callbacks(stage: str) -> CallbackList:
    """Return no callbacks."""
    return ()


def with_tensorboard(
    callbacks: Callable[[str], CallbackList], folder: str | None
) -> Callable[[str], CallbackList]:
    """Return the callbacks, plus TensorBoard's if `folder` is not None.

    Its event files are in FOLDER/STAGE/train and FOLDER/STAGE/validation.
    """
    if folder is None:
        return callbacks

    def of_stage(stage: str) -> CallbackList:
        board = keras.callbacks.TensorBoard(f"{folder}/{stage}", write_graph=False)
        return [*callbacks(stage), board]

    return of_stage


class StageCallbacks(keras.callbacks.Callback):
    """Forwards the events of a stage's fits to its callbacks, in the first process only."""

    def __init__(self, callbacks: CallbackList, model: keras.Model, epochs: int):
        super().__init__()
        given = list(callbacks) if distribute.first() else []
        self.all: Any = keras.callbacks.CallbackList(given, model=model)
        self.epochs: int = epochs
        self.begun: bool = False
        self.stopped: bool = False  # whether a callback has set model.stop_training
        for name in ("train", "test"):
            for edge in ("begin", "end"):
                hook = f"on_{name}_batch_{edge}"
                setattr(self, hook, getattr(self.all, hook))

    def set_params(self, params: Any) -> None:
        self.all.set_params(dict(params or {}) | {"epochs": self.epochs})

    def on_train_begin(self, logs: Any = None) -> None:
        if not self.begun:
            self.begun = True
            self.all.on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.all.on_epoch_begin(epoch, logs)

    def on_test_begin(self, logs: Any = None) -> None:
        self.all.on_test_begin(logs)

    def on_test_end(self, logs: Any = None) -> None:
        self.all.on_test_end(logs)

    def epoch_ended(self, epoch: int, values: Mapping[str, float]) -> None:
        """Forward the end of an epoch; call it after `fit`, whose logs lack some of `values`."""
        self.all.on_epoch_end(epoch, dict(values))
        self.stopped = bool(distribute.agreed(self.all.model.stop_training))

    def stage_ended(self) -> None:
        if self.begun:
            self.all.on_train_end()
