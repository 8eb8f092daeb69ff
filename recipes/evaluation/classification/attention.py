"""Where on an image a classifier saw its class, without gradients, on any backend.

These nets end in a mean over the places of their last map and a small head. So the share of one
place in a class's logit is what the head loses when the mean leaves that place out. Where the head
is one linear layer (MobileNetV1, V2) the map is the class activation map of
https://arxiv.org/abs/1512.04150, less its mean; V3 and V4 have a hidden layer behind the mean,
which this goes through exactly, where Grad-CAM would take its slope.
"""

from collections.abc import Sequence

import keras
import numpy as np
from matplotlib import colormaps
from PIL import Image

from kzoo.recipes.training.stages import split_at

POOL = "head_pool"  # the layer that takes the mean
OPACITY = 0.55


def class_maps(model: keras.Model, images: np.ndarray, classes: Sequence[int]) -> np.ndarray | None:
    """Return for each image where its class was seen, (N, h, w) in [0, 1].

    images: (N, H, W, 3) in [0, 255]. classes: the one of each image to explain. None where the
    model does not end in a mean over places and a head.
    """
    if POOL not in {layer.name for layer in model.layers}:
        return None
    body, head = split_at(model, POOL)
    layers = [layer for layer in head.layers if not is_score(layer)]
    maps = []
    for image, label in zip(images, classes, strict=True):
        places = body.predict_on_batch(image[None].astype("float32"))[0]
        height, width, channels = places.shape
        rows = places.reshape(-1, channels)
        others = (rows.sum(axis=0) - rows) / max(1, len(rows) - 1)  # means without each place
        every = np.concatenate([rows.mean(axis=0, keepdims=True), others])
        x = keras.ops.convert_to_tensor(every[:, None, None, :])
        for layer in layers:  # by hand: the head was built for a map of another size
            x = layer(x)
        logits = keras.ops.convert_to_numpy(x).reshape(len(every), -1)[:, label]
        lost = np.maximum(0, logits[0] - logits[1:]).reshape(height, width)
        maps.append(lost / max(lost.max(), 1e-12))
    return np.stack(maps)


def is_score(layer: keras.layers.Layer) -> bool:
    """Whether a layer only makes scores of logits, or does nothing outside of training."""
    scores = (keras.activations.softmax, keras.activations.sigmoid)
    return isinstance(layer, keras.layers.Dropout) or (
        isinstance(layer, keras.layers.Activation) and layer.activation in scores
    )


def shown_on(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) uint8 under a map (h, w) in [0, 1]: bright where it is large."""
    height, width = image.shape[:2]
    small = Image.fromarray((255 * places).astype("uint8"))
    large = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) / 255
    colours = 255 * colormaps["inferno"](large)[..., :3]
    grey = image.mean(axis=-1, keepdims=True)
    return np.rint(grey * (1 - OPACITY) + colours * OPACITY).astype("uint8")
