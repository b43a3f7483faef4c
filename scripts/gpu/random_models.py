"""Models with random weights, of the shape of real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripts.benchmarks.models import random_model, without_end
from scripts.gpu.figure import Machine

TEXT = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
}
"""TinyLlama's shape: 1.0 billion parameters with 4,096 tokens."""

SMALL_TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}

PEAKED = 4.0
"""Factor on the last layer: as weights are initialized, all tokens are nearly equally likely, and the smallest rounding
would change a text. Those of a trained model are not."""


def text_model(machine: Machine) -> Path:
    """A model that never ends a text by itself, made once."""
    folder = machine.folder / ("small-text" if machine.small else "text")
    endless = folder.with_name(f"{folder.name}-without-end")
    if not endless.exists():
        without_end(random_model(folder, PEAKED, **(SMALL_TEXT if machine.small else TEXT)), endless)
    return endless


def picture_pipeline(machine: Machine, *, tiny: bool = False) -> Any:
    """A StableDiffusionXLPipeline on the machine's device. Its size is about half of SDXL's, or `tiny`."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tiny = tiny or machine.small
    tokenizer = _clip_tokenizer()
    hidden = (32, 32) if tiny else (768, 1280)
    torch.manual_seed(0)
    with torch.device(machine.device):
        encoders = [
            kind(
                CLIPTextConfig(
                    vocab_size=len(tokenizer),
                    hidden_size=size,
                    projection_dim=size,
                    intermediate_size=4 * size,
                    num_attention_heads=size // 16,
                    num_hidden_layers=2,
                    bos_token_id=tokenizer.bos_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                )
            )
            for kind, size in zip((CLIPTextModel, CLIPTextModelWithProjection), hidden, strict=True)
        ]
        unet = UNet2DConditionModel(
            sample_size=16 if tiny else 128,
            block_out_channels=(4, 8) if tiny else (320, 640, 1280),
            norm_num_groups=2 if tiny else 32,
            down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * (1 if tiny else 2)),
            up_block_types=(*["CrossAttnUpBlock2D"] * (1 if tiny else 2), "UpBlock2D"),
            attention_head_dim=(2, 4) if tiny else (5, 10, 20),
            transformer_layers_per_block=1 if tiny else (1, 2, 4),
            cross_attention_dim=sum(hidden),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8 if tiny else 256,
            projection_class_embeddings_input_dim=hidden[1] + 6 * (8 if tiny else 256),
        )
        blocks = (4, 8) if tiny else (128, 256, 512, 512)
        vae = AutoencoderKL(
            sample_size=32 if tiny else 1024,
            block_out_channels=blocks,
            down_block_types=("DownEncoderBlock2D",) * len(blocks),
            up_block_types=("UpDecoderBlock2D",) * len(blocks),
            layers_per_block=1 if tiny else 2,
            latent_channels=4,
            norm_num_groups=2 if tiny else 32,
        )
    pipe = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=encoders[0],
        text_encoder_2=encoders[1],
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=EulerDiscreteScheduler(),
    )
    pipe.to(torch.float32 if machine.small else torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _clip_tokenizer() -> Any:
    """CLIP's kind of tokenizer, with a token for each byte."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[], model_max_length=77)
