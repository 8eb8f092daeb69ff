"""The optimizer of all stages: Adam with a mean of the weights that is of use in short runs too."""

from typing import Any

import keras

EARLIEST = 10  # after t steps the mean spans about t / 9 of them: Inception's, TF's num_updates


@keras.saving.register_keras_serializable(package="kzoo")
class Adam(keras.optimizers.Adam):
    """Adam whose momentum of the mean of the weights rises to `ema_momentum` in the first steps.

    At step t it is (1 + t) / (10 + t) at most, so that a momentum fit for long runs does not hold
    on to the weights that a short one began with
    (https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage).
    """

    @property
    def ema_momentum(self) -> Any:
        """The momentum of the step to come: a number, or a tensor once it has steps to count."""
        if not self.built or not self.use_ema:
            return self.highest_momentum
        step = keras.ops.cast(self.iterations, "float32")
        return keras.ops.minimum(self.highest_momentum, (1 + step) / (EARLIEST + step))

    @ema_momentum.setter
    def ema_momentum(self, value: float) -> None:
        self.highest_momentum = value

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"ema_momentum": self.highest_momentum}
