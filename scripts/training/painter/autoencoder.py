"""The painter's autoencoder: 64x64 pixels to 16x16 latents and back."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from scripts.training.painter.corpus import SIDE
from scripts.training.painter.training_loop import Loop

CHANNELS, CELLS = 6, 16  # of a latent: (6, 16, 16)


def build_vae() -> AutoencoderKL:
    """64x64 pixels to 16x16 latents, with few channels where the picture is large, since that takes the most time."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 32, 64),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=SIDE,
        mid_block_add_attention=False,
    )
    # A small variance of the latents from the start: with the usual one, the decoder sees only noise for a long time.
    torch.nn.init.constant_(vae.quant_conv.bias[CHANNELS:], -6.0)
    return vae


def vae_loss(vae: AutoencoderKL, pictures: Tensor, noise: Tensor, slack: Tensor) -> Tensor:
    """How far pictures, (B, 3, 64, 64), come back changed from latents made up to 30 % noise, (B, 6, 16, 16).

    The noise teaches the decoder to correct small errors of the denoiser. Two of the channels are made to encode how
    red and how blue the picture is: without that, the latents encoded shapes only, and green was lost.
    """
    mean, logvar = vae.quant_conv(vae.encoder(pictures)).chunk(2, dim=1)
    logvar = logvar.clamp(-20, 5)
    # Relative to each channel's own spread, so that the encoder cannot escape the noise by larger latents.
    scale = mean.detach().std(dim=(0, 2, 3), keepdim=True)
    spread = (slack * scale).square() + logvar.exp()
    back = vae.decoder(vae.post_quant_conv(mean + spread.sqrt() * noise))
    divergence = (mean.square() + logvar.exp() - 1 - logvar).mean()
    tint = 4 * nn.functional.avg_pool2d(pictures[:, ::2] - pictures[:, 1:2], SIDE // CELLS)
    return picture_loss(back, pictures) + 0.1 * nn.functional.l1_loss(mean[:, :2], tint) + 1e-4 * divergence


def picture_loss(drawn: Tensor, wanted: Tensor) -> Tensor:
    """Error of pixels, of edges, which make a picture look sharp, and of colours, which are learnt slowest."""
    change = drawn - wanted
    colours = nn.functional.avg_pool2d(change, 8).abs().mean()
    edges = torch.diff(change, dim=2).abs().mean() + torch.diff(change, dim=3).abs().mean()
    return change.abs().mean() + change.square().mean() + 0.5 * edges + 2 * colours


def train_vae(pictures: Tensor, work: Path, steps: int) -> AutoencoderKL:
    """Train the autoencoder on pictures, (N, 3, 64, 64)."""
    vae = build_vae()
    parts = nn.ModuleDict({"vae": vae})
    optimizer = torch.optim.AdamW(
        [{"params": list(vae.parameters()), "peak": 2e-3}], betas=(0.9, 0.99), weight_decay=1e-3, fused=True
    )
    loop = Loop("vae", parts, optimizer, work / "vae.pt", steps)
    for _ in loop.left():
        chosen = pictures[torch.randint(len(pictures), (8,))]
        noise, slack = torch.randn(len(chosen), CHANNELS, CELLS, CELLS), 0.3 * torch.rand(len(chosen), 1, 1, 1)
        loop.learn(vae_loss(vae, chosen, noise, slack))
        if loop.step % 200 == 0 or loop.step == steps:
            loop.save()
    return vae


def standardise(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """The pictures' latents, (N, 6, 16, 16), after giving each channel mean 0 and variance 1.

    The change is folded into the convolutions on either side, so that pictures are decoded as before.
    """
    with torch.no_grad():
        raw = torch.cat([vae.encode(some).latent_dist.mode() for some in pictures.split(32)])
        mean, spread = raw.mean(dim=(0, 2, 3)), raw.std(dim=(0, 2, 3))
        after, before = vae.quant_conv, vae.post_quant_conv
        after.bias[:CHANNELS] = (after.bias[:CHANNELS] - mean) / spread
        after.weight[:CHANNELS] /= spread.view(-1, 1, 1, 1)
        after.bias[CHANNELS:] -= 2 * spread.log()
        before.bias += before.weight[:, :, 0, 0] @ mean
        before.weight *= spread.view(1, -1, 1, 1)
    vae.register_to_config(scaling_factor=1.0)
    latents: Tensor = (raw - mean.view(1, -1, 1, 1)) / spread.view(1, -1, 1, 1)
    return latents
