# %% [markdown]
# # From photos to a phone
#
# One call fine-tunes a MobileNet on a folder of images, quantizes it, and verifies the int8 file
# with the TFLite interpreter. Install with `pip install 'kzoo[tensorflow,recipes]'`.

# %% [markdown]
# ## Images
#
# One folder per class. These are drawn, so that the notebook runs anywhere: put your own folder
# in their place.

# %%
from pathlib import Path

import numpy as np
from PIL import Image

from kzoo import recipes

photos = Path("photos")
rng = np.random.default_rng(0)
for label in ("stripes", "checks", "spots"):
    (photos / label).mkdir(parents=True, exist_ok=True)
    for i in range(80):
        y, x = np.mgrid[:64, :64] + rng.uniform(0, 16, (2, 1, 1))
        wave = {
            "stripes": np.sin(y / 2),
            "checks": np.sign(np.sin(y / 4) * np.sin(x / 4)),
            "spots": (np.hypot(y % 16 - 8, x % 16 - 8) < 5) * 2.0 - 1,
        }[label]
        pixels = rng.uniform(90, 160, 3) + 60 * wave[..., None] + rng.normal(0, 10, (64, 64, 3))
        Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(photos / label / f"{i}.png")

# %% [markdown]
# ## Look at the data first

# %%
print(recipes.inspect(photos))

# %% [markdown]
# ## Train
#
# `model="mobilenet_v3_small"`, `weights="imagenet"` and `size=224` are what you want for photos;
# this is as small as it goes. The run is one folder: called again after an interruption, it
# resumes.

# %%
results = recipes.classify(
    photos, model="mobilenet_v2", alpha=0.35, size=64, weights="none", epochs=16, batch_size=16,
    qat_epochs=1, learning_rate=3e-3, out="run", quiet=True,
)  # fmt: skip
print(results)

# %% [markdown]
# ## Use the file
#
# `run/report.html` shows the figures, the mistakes and the noise of each layer.
# `run/model.tflite` has the labels and MediaPipe's metadata inside. `kzoo serve run` opens it in
# a browser, `kzoo android run` writes an app.

# %%
for found in recipes.predict("run", [photos / "stripes" / "0.png", photos / "spots" / "1.png"]):
    print(found)
