"""Class activation maps of classifiers without gradients, on any backend.

The nets end in global average pooling and a small head. The value of the map at a position is the
decrease of the class's logit if the pooling leaves that position out. For a head of one linear
layer (MobileNetV1, V2) this is the class activation map of https://arxiv.org/abs/1512.04150 minus
its mean; the hidden layer of V3 and V4 is evaluated exactly, where Grad-CAM would linearize it.
"""

from collections.abc import Sequence

import keras
import numpy as np
from matplotlib import colormaps
from PIL import Image

from kzoo.recipes.training.stages import split_at

POOL = "head_pool"  # the global average pooling
OPACITY = 0.55


def class_maps(model: keras.Model, images: np.ndarray, classes: Sequence[int]) -> np.ndarray | None:
    """Return an activation map of a class for each image, (N, h, w) in [0, 1].

    images: (N, H, W, 3) in [0, 255]. classes: the class of each image to explain. Returns None if
    the model does not end in global average pooling and a head.
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
        others = (rows.sum(axis=0) - rows) / max(1, len(rows) - 1)  # means without each position
        every = np.concatenate([rows.mean(axis=0, keepdims=True), others])
        x = keras.ops.convert_to_tensor(every[:, None, None, :])
        for layer in layers:  # layer by layer: the head was built for a map of another size
            x = layer(x)
        logits = keras.ops.convert_to_numpy(x).reshape(len(every), -1)[:, label]
        lost = np.maximum(0, logits[0] - logits[1:]).reshape(height, width)
        maps.append(lost / max(lost.max(), 1e-12))
    return np.stack(maps)


def is_score(layer: keras.layers.Layer) -> bool:
    """Return whether a layer is a final activation or dropout."""
    scores = (keras.activations.softmax, keras.activations.sigmoid)
    return isinstance(layer, keras.layers.Dropout) or (
        isinstance(layer, keras.layers.Activation) and layer.activation in scores
    )


def shown_on(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) uint8 with a map (h, w) in [0, 1] overlaid, bright for 1."""
    height, width = image.shape[:2]
    small = Image.fromarray((255 * places).astype("uint8"))
    large = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) / 255
    colours = 255 * colormaps["inferno"](large)[..., :3]
    grey = image.mean(axis=-1, keepdims=True)
    return np.rint(grey * (1 - OPACITY) + colours * OPACITY).astype("uint8")
