"""Tiny pipelines with random weights around the newer transformers, in diffusers' own classes. Each draws its pictures
by texts of another length, and in its own way."""

from __future__ import annotations

from typing import Any

from tests.support.pipelines import clip_encoder, clip_tokenizer, decoder, library, seeded, word_tokenizer

LAYERS = 4


def chat_tokenizer() -> Any:
    tokenizer = word_tokenizer()
    tokenizer.model_max_length = 128
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    return tokenizer


def qwen3(kind: str = "Qwen3Model", layers: int = LAYERS) -> Any:
    import transformers

    config = transformers.Qwen3Config(
        vocab_size=16,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
    )
    return getattr(transformers, kind)(config).eval()


def qwen_vl(of_vision: str = "Qwen2_5_VL", kind: str = "ForConditionalGeneration") -> Any:
    """Reads pictures, too, which nobody shows it."""
    import transformers

    text = {
        "vocab_size": 16,
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10_000.0},
    }
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 37, "num_heads": 4, "out_hidden_size": 32}
    config = getattr(transformers, f"{of_vision}Config")(
        text_config=text, vision_config=vision, vision_start_token_id=10, vision_end_token_id=11, image_token_id=12
    )
    return getattr(transformers, f"{of_vision}{kind}")(config).eval()


def qwen_decoder() -> Any:
    """Of pictures and of videos of one picture."""
    return (
        library()
        .AutoencoderKLQwenImage(
            base_dim=4,
            z_dim=4,
            dim_mult=[1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        )
        .eval()
    )


def z_image() -> Any:
    diffusers = seeded()
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=4,
        dim=16,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=32,
        axes_dims=[2, 2, 4],
        axes_lens=[512, 128, 128],
    )
    for token in (transformer.x_pad_token, transformer.cap_pad_token):
        token.data.normal_()
    return diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=decoder(4, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06),
        text_encoder=qwen3(),
        tokenizer=chat_tokenizer(),
        transformer=transformer.eval(),
    )


def qwen_image() -> Any:
    diffusers = seeded()
    return diffusers.QwenImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=qwen_decoder(),
        text_encoder=qwen_vl(),
        tokenizer=chat_tokenizer(),
        transformer=diffusers.QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=(4, 6, 6),
        ).eval(),
    )


def krea_2() -> Any:
    diffusers = seeded()
    return diffusers.Krea2Pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=qwen_decoder(),
        text_encoder=qwen_vl("Qwen3VL", "Model"),
        tokenizer=chat_tokenizer(),
        transformer=diffusers.Krea2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=37,
            timestep_embed_dim=16,
            text_hidden_dim=32,
            num_text_layers=2,
            text_num_attention_heads=2,
            text_num_key_value_heads=1,
            text_intermediate_size=37,
            num_layerwise_text_blocks=1,
            num_refiner_text_blocks=1,
            axes_dims_rope=(2, 2, 4),
        ).eval(),
        text_encoder_select_layers=(1, 2),
    )


def flux_2_klein() -> Any:
    """Reads its text out of three layers of the encoder, the last of them the 27th."""
    diffusers = seeded()
    return diffusers.Flux2KleinPipeline(
        transformer=diffusers.Flux2Transformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=96,
            timestep_guidance_channels=16,
            axes_dims_rope=[4, 4, 4, 4],
            guidance_embeds=False,
        ).eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=diffusers.AutoencoderKLFlux2(
            block_out_channels=(4,),
            down_block_types=("DownEncoderBlock2D",),
            up_block_types=("UpDecoderBlock2D",),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
            sample_size=16,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ).eval(),
        text_encoder=qwen3("Qwen3ForCausalLM", layers=28),
        tokenizer=chat_tokenizer(),
    )


def lumina_2() -> Any:
    diffusers = seeded()
    return diffusers.Lumina2Pipeline(
        transformer=diffusers.Lumina2Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            hidden_size=16,
            num_layers=1,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=8,
            axes_dim_rope=(2, 2, 4),
            axes_lens=(300, 64, 64),
            cap_feat_dim=32,
        ).eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=decoder(4, blocks=(4, 4, 4, 4), use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06),
        text_encoder=qwen3(),
        tokenizer=chat_tokenizer(),
    )


def kandinsky_5() -> Any:
    """Makes pictures of few sizes only, here of smaller ones."""
    diffusers = seeded()
    pipe = diffusers.Kandinsky5T2IPipeline(
        transformer=diffusers.Kandinsky5Transformer3DModel(
            in_visual_dim=4,
            in_text_dim=32,
            in_text_dim2=32,
            time_dim=16,
            out_visual_dim=4,
            model_dim=16,
            ff_dim=32,
            num_text_blocks=1,
            num_visual_blocks=1,
            axes_dims=(2, 2, 4),
        ).eval(),
        vae=decoder(4, blocks=(4, 4, 4, 4), use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=qwen_vl(),
        tokenizer=chat_tokenizer(),
        text_encoder_2=clip_encoder(positions=77),
        tokenizer_2=clip_tokenizer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )
    pipe.resolutions = [(64, 64), (96, 64)]
    return pipe


def sana_sprint() -> Any:
    """Takes two steps, unless it is asked for another number in the right way."""
    diffusers = seeded()
    blocks = (8, 8, 8, 8, 8, 8)
    return diffusers.SanaSprintPipeline(
        transformer=diffusers.SanaTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=32,
            sample_size=3,
            guidance_embeds=True,
            qk_norm="rms_norm_across_heads",
        ).eval(),
        vae=diffusers.AutoencoderDC(
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_out_channels=blocks,
            decoder_block_out_channels=blocks,
            encoder_layers_per_block=(1,) * 6,
            decoder_layers_per_block=(1,) * 6,
            encoder_qkv_multiscales=((),) * 6,
            decoder_qkv_multiscales=((),) * 6,
        ).eval(),
        scheduler=diffusers.SCMScheduler(),
        text_encoder=qwen3(),
        tokenizer=chat_tokenizer(),
    )
