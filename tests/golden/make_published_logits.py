"""Writes published_logits.npz: what the published PolyNet (pretrainedmodels 0.7.4) makes of two photographs.

    python tests/golden/make_published_logits.py

Its weights are those of `formula.py`; the photographs, of scikit-learn, are prepared as its evaluation does it (resized
to 378 × 378 and cropped with Pillow, scaled, normalized).
"""

from pathlib import Path

import numpy as np
import torch
from formula import formula
from PIL import Image
from sklearn.datasets import load_sample_image

from polynet_keras.evaluation.parity import pretrainedmodels_network

net = pretrainedmodels_network().eval()
state = {
    key: torch.from_numpy(formula(key, tuple(value.shape)))
    for key, value in net.state_dict().items()
    if not key.endswith("num_batches_tracked")
}
net.load_state_dict(state, strict=False)
crops = []
for name in ("china.jpg", "flower.jpg"):
    resized = Image.fromarray(load_sample_image(name)).resize((378, 378), Image.Resampling.BILINEAR)
    crops.append(np.asarray(resized.crop((24, 24, 24 + 331, 24 + 331))))
crops = np.stack(crops)
mean, std = (np.array(values, "float32") for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
images = (crops / np.float32(255) - mean) / std
with torch.no_grad():
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2)
    features = net.features(inputs).mean((2, 3)).numpy()
    logits = net(inputs).numpy()
print(f"logits of {logits.min():.3f} to {logits.max():.3f}, apart by {np.abs(logits[0] - logits[1]).max():.3f}")
np.savez_compressed(
    Path(__file__).with_name("published_logits.npz"),
    crops=crops,
    prepared=images[:, ::16, ::16],  # enough of the input tensor to check its arithmetic
    features=features,
    logits=logits,
)
