"""Tiny pipelines with random weights, in diffusers' own classes."""

from __future__ import annotations

import importlib
from typing import Any

WORDS = ["cat", "apple", "red", "a"]


def library() -> Any:
    """diffusers, imported late, and not as mypy sees it."""
    return importlib.import_module("diffusers")


def seeded() -> Any:
    import torch

    torch.manual_seed(0)
    return library()


def clip_tokenizer() -> Any:
    """Byte-level, and its unknown token is its end-of-sequence token: as in CLIP."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[("c", "a"), ("ca", "t</w>")], model_max_length=16)


def t5_tokenizer() -> Any:
    from transformers import T5TokenizerFast

    letters = [(chr(code), -2.0) for code in range(97, 123)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *letters]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=16)


def word_tokenizer() -> Any:
    """One token for each known word, and one for anything else."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate(["<pad>", "<unk>", "<s>", "</s>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=16, **special)


def clip_encoder(kind: str = "CLIPTextModel", hidden: int = 32, positions: int = 16) -> Any:
    import transformers

    config = transformers.CLIPTextConfig(
        vocab_size=520,
        hidden_size=hidden,
        projection_dim=hidden,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        max_position_embeddings=positions,
        bos_token_id=514,
        eos_token_id=515,
        pad_token_id=515,
    )
    return getattr(transformers, kind)(config).eval()


def t5_encoder() -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=32, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4, decoder_start_token_id=0)
    return T5EncoderModel(config).eval()


def decoder(latents: int, blocks: tuple[int, ...] = (4, 8), **config: Any) -> Any:
    return (
        library()
        .AutoencoderKL(
            block_out_channels=blocks,
            down_block_types=["DownEncoderBlock2D"] * len(blocks),
            up_block_types=["UpDecoderBlock2D"] * len(blocks),
            latent_channels=latents,
            norm_num_groups=2,
            sample_size=16,
            **config,
        )
        .eval()
    )


def unet(**config: Any) -> Any:
    return (
        library()
        .UNet2DConditionModel(
            block_out_channels=(4, 8),
            layers_per_block=1,
            sample_size=16,
            in_channels=4,
            out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=2,
            **config,
        )
        .eval()
    )


def stable_diffusion(scheduler: str = "DDIMScheduler") -> Any:
    """Pictures of 32 x 32."""
    diffusers = seeded()
    beta = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    more = {"skip_prk_steps": True} if scheduler == "PNDMScheduler" else {"clip_sample": False}
    return diffusers.StableDiffusionPipeline(
        unet=unet(cross_attention_dim=32, attention_head_dim=2),
        scheduler=getattr(diffusers, scheduler)(**beta, steps_offset=1, **more),
        vae=decoder(4),
        text_encoder=clip_encoder(),
        tokenizer=clip_tokenizer(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl() -> Any:
    diffusers = seeded()
    return diffusers.StableDiffusionXLPipeline(
        unet=unet(
            cross_attention_dim=64,
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            transformer_layers_per_block=(1, 1),
            projection_class_embeddings_input_dim=80,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1),
        vae=decoder(4),
        text_encoder=clip_encoder(),
        text_encoder_2=clip_encoder("CLIPTextModelWithProjection"),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        add_watermarker=False,
    )


def stable_diffusion_3() -> Any:
    """Takes sides that are multiples of what its decoder and its patches make together."""
    diffusers = seeded()
    return diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            out_channels=4,
            pos_embed_max_size=8,
        ).eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=decoder(4, blocks=(4, 4, 4, 4), use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06),
        text_encoder=clip_encoder("CLIPTextModelWithProjection", 16),
        text_encoder_2=clip_encoder("CLIPTextModelWithProjection", 16),
        text_encoder_3=t5_encoder(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        tokenizer_3=t5_tokenizer(),
    )


def flux() -> Any:
    diffusers = seeded()
    return diffusers.FluxPipeline(
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=(2, 2, 4),
            guidance_embeds=True,
        ).eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=decoder(4, blocks=(4,), use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06),
        text_encoder=clip_encoder(),
        text_encoder_2=t5_encoder(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=t5_tokenizer(),
    )
