"""Records a tiny diffusers UNet2DModel: weights, inputs, the mixture that its output encodes, and gradients.

    python unet_tiny.py            # writes unet_tiny.safetensors beside it

Needs torch, diffusers and safetensors; recorded with diffusers 0.42.1. `tests/unet.rs` replays the file.
"""

from pathlib import Path

import torch
from diffusers import UNet2DModel
from safetensors.torch import save_file

K, C, CLASSES = 2, 3, 3


def main():
    torch.manual_seed(7)
    net = UNet2DModel(
        sample_size=8,
        in_channels=C,
        out_channels=K * C + K,
        block_out_channels=(4, 8),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=None,
        norm_num_groups=2,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        num_class_embeds=CLASSES + 1,
    )
    # PyTorch's initial norms hide their scale and shift.
    for parameter in net.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.3, 0.5)
    x = torch.randn(2, C, 8, 12, requires_grad=True)
    t, label = torch.tensor([0.2, 0.9]), torch.tensor([1, CLASSES])
    y = net(x, 1000 * t, class_labels=label).sample
    means = y[:, : K * C].unflatten(1, (K, C))
    log_weights = y[:, K * C :].log_softmax(1)[:, :, None]
    c_means, c_weights = torch.randn_like(means), torch.randn_like(log_weights)
    ((means * c_means).sum() + (log_weights * c_weights).sum()).backward()

    tensors = {f"weight.{name}": p.detach() for name, p in net.named_parameters()}
    tensors |= {f"grad.{name}": p.grad for name, p in net.named_parameters()}
    tensors |= {"x": x.detach(), "t": t, "label": label.float(), "grad_x": x.grad}
    tensors |= {"means": means.detach(), "log_weights": log_weights.detach()}
    tensors |= {"c_means": c_means, "c_log_weights": c_weights}
    path = Path(__file__).with_suffix(".safetensors")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
