"""The optimizer of all stages: Adam with a moving average of the weights that suits short runs."""

from typing import Any

import keras

EARLIEST = 10  # after t steps the average spans about t / 9 of them (TF's num_updates)


@keras.saving.register_keras_serializable(package="kzoo")
class Adam(keras.optimizers.Adam):
    """Adam whose weight average has a momentum that rises to `ema_momentum` in the first steps.

    At step t it is at most (1 + t) / (10 + t), so that with a momentum for long runs the average in
    a short run is not dominated by the initial weights
    (https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage).
    """

    @property
    def ema_momentum(self) -> Any:
        """The momentum of the next step: a number, or a tensor once the optimizer is built."""
        if not self.built or not self.use_ema:
            return self.highest_momentum
        step = keras.ops.cast(self.iterations, "float32")
        return keras.ops.minimum(self.highest_momentum, (1 + step) / (EARLIEST + step))

    @ema_momentum.setter
    def ema_momentum(self, value: float) -> None:
        self.highest_momentum = value

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"ema_momentum": self.highest_momentum}
