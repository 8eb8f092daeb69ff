# %% [markdown]
# # int8, step by step
#
# Quantize a trained model, see where the noise comes from, let the float model teach its int8
# copy, and verify the file. Export needs TensorFlow.

# %%
import keras
import numpy as np

import kzoo
import kzoo.tflite
from kzoo.quantization.sensitivity import sensitivity

rng = np.random.default_rng(0)
labels = rng.integers(0, 4, 192)
images = rng.normal(100, 30, (192, 64, 64, 3))
for corner in range(4):  # the label is the bright corner
    y, x = (slice(0, 32) if side else slice(32, None) for side in (corner & 1, corner & 2))
    images[labels == corner, y, x] += 60
images = images.clip(0, 255).astype("float32")

model = kzoo.MobileNetV2(0.35, input_shape=(64, 64, 3), classes=4, norm_momentum=0.8)
model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(images, labels, epochs=6, batch_size=16, verbose=2)

# %% [markdown]
# ## Calibration alone
#
# A hundred unlabelled images of the kind that the phone will see.

# %%
int8 = kzoo.quantize(model, calibration=images[:100])

# %% [markdown]
# ## Which layers cost most
#
# Each is made int8 alone; the lower its signal-to-noise ratio, the more it costs.

# %%
print(sensitivity(model, calibration=images[:32], images=images[32:48]))

# %% [markdown]
# ## Quantization-aware training
#
# The float model is the teacher; labels are not needed.

# %%
student = kzoo.distill(int8, model)
student.compile(keras.optimizers.Adam(3e-5))
student.fit(images, epochs=1, batch_size=32, verbose=2)

# %% [markdown]
# ## The file
#
# `convert` opens it with the interpreter and compares before it gets its name.

# %%
file = kzoo.tflite.convert(int8, "corners.tflite", labels=["00", "01", "10", "11"])
print(kzoo.tflite.compare(model, file, images[:64], labels=labels[:64]))
print(kzoo.tflite.audit(file))
