"""Records inception.safetensors beside this file, which tests/inception.rs compares with.

    pip install torch-fidelity==0.4.0 safetensors
    python record_inception.py

The weights are made up, from a hash of each tensor's name and the position in it, so that they need not be stored: the same formula is in
the test. What is recorded: two small images, what both programs' resizing makes of one of them (every 997th value), and the features and
logits that torch-fidelity's network gives.
"""

import pathlib
import tempfile

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

HERE = pathlib.Path(__file__).parent


def uniform(name, n):
    """n numbers in [-1, 1) that depend on the name and the position (splitmix64 of FNV-1a)."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    with np.errstate(over="ignore"):
        z = np.uint64(h) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)).astype(np.float32)


def weights(name, shape):
    u = uniform(name, int(np.prod(shape))).reshape(shape)
    fan_in = np.prod(shape[1:]) if len(shape) > 1 else 1
    if name.endswith("conv.weight"):
        return u * np.float32(np.sqrt(np.float32(6.0 / fan_in)))
    if name.endswith("bn.weight") or name.endswith("running_var"):
        return np.float32(1) + np.float32(0.25) * u
    if name == "fc.weight":
        return u * np.float32(0.05)
    return np.float32(0.1) * u


class Bare(FeatureExtractorInceptionV3):
    """The extractor, whose constructor wants a weight file, given a file of made-up weights."""


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "weights.pth"
        original = torch.nn.Module.load_state_dict
        # The names and shapes are the network's own: they are looked up in it before anything is loaded.
        state = {}

        def fill(self, _):
            for name, tensor in self.state_dict().items():
                if not name.endswith("num_batches_tracked"):
                    state[name] = torch.from_numpy(weights(name, tuple(tensor.shape)).copy())
                else:
                    state[name] = tensor
            return original(self, state)

        torch.save({}, path)
        torch.nn.Module.load_state_dict = fill
        net = Bare("inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path))
        torch.nn.Module.load_state_dict = original
    images = ((uniform("images", 2 * 3 * 20 * 24) + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    x = torch.from_numpy(images.reshape(2, 3, 20, 24))
    features, logits = net(x)
    fidelity = (interpolate_bilinear_2d_like_tensorflow1x(x[:1].float(), size=(299, 299), align_corners=False) - 128) / 128
    pytorch = 2 * F.interpolate(x[:1].float() / 255, size=(299, 299), mode="bilinear", align_corners=False) - 1
    save_file(
        {
            "images": x.numpy().astype(np.float32),
            "features": features.numpy(),
            "logits": logits.numpy(),
            "resized_torch_fidelity": fidelity.numpy().ravel()[::997].copy(),
            "resized_pytorch_fid": pytorch.numpy().ravel()[::997].copy(),
        },
        HERE / "inception.safetensors",
    )
    print(features.abs().max(), logits.abs().max(), features.std())


if __name__ == "__main__":
    main()
