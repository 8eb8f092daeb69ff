# %% [markdown]
# # A MobileNet in plain Keras
#
# `kzoo.MobileNetV3Small` is a Keras model like any other. Pixels are in [0, 255]: the scaling is
# inside.

# %%
import keras
import numpy as np

import kzoo

rng = np.random.default_rng(0)
labels = rng.integers(0, 3, 192)
images = rng.uniform(0, 120, (192, 64, 64, 3)).astype("float32")
images[np.arange(192), :, :, labels] += 80  # the label is the brightest channel

# %% [markdown]
# ## A head on a frozen backbone
#
# Pass `weights="imagenet"`, or the path of a weights file, for pretrained weights. Here the
# backbone is random, so it is trained from the start.

# %%
backbone = kzoo.MobileNetV3Small(
    alpha=0.5, input_shape=(64, 64, 3), include_top=False, pooling="avg", norm_momentum=0.9
)
image = keras.Input((64, 64, 3))
scores = keras.layers.Dense(3, activation="softmax")(backbone(image))
model = keras.Model(image, scores)
model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(images, labels, epochs=3, verbose=2)

# %% [markdown]
# ## Batch normalization
#
# An outer model that trains updates the statistics of every inner batch norm, also with
# `training=False`. Freeze them where the weights are pretrained, or recalibrate them where a file
# has no statistics (`kzoo.recalibrate_batch_norm`).

# %%
kzoo.freeze_batch_norm(model)
model.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(images, labels, epochs=1, verbose=2)

# %% [markdown]
# ## What the model is made of

# %%
print(kzoo.profile(backbone))
