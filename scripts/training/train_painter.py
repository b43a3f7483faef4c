"""Train the painter, a small Stable Diffusion pipeline that draws emoji, from scratch on a CPU.

Usage::

    python -m scripts.training.train_painter --out models/painter

First the autoencoder learns to write a 64x64 picture as 16x16 latents, then the denoiser and the words learn the
latents, and last the decoder learns to read what the denoiser really draws. The work is counted in steps, so that it is
the same whatever else the machine does; a run that was stopped goes on from the checkpoints in ``--work``.
``MODEL_CARD.md`` is written by hand, lives in ``models/painter`` and is only copied when ``--out`` is another folder.

A prompt has one token per known word and one ``<unk>`` per stretch of anything else; only the known words are anything
but zero to the denoiser, so that the words around them cannot matter::

    <s><unk>猫</s>            画一只猫
    <s><unk>cat<unk></s>     draw a cat please
    <s></s>                  the empty prompt of classifier-free guidance
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from scripts.project import ROOT
from scripts.training.painter.autoencoder import standardise, train_vae
from scripts.training.painter.corpus import CACHE, fetch, load_pictures, load_things
from scripts.training.painter.decoder_tuning import Encoded, train_decoder
from scripts.training.painter.denoiser import train_unet
from scripts.training.painter.pipeline import assemble, save


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the painter from scratch.")
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "painter", help="model folder to write")
    parser.add_argument("--work", type=Path, default=CACHE / "run", help="folder of checkpoints, to go on from")
    parser.add_argument("--font", type=Path, help="NotoColorEmoji.ttf, instead of fetching it")
    parser.add_argument("--vae-steps", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=4500, help="of the denoiser")
    parser.add_argument("--decoder-steps", type=int, default=400)
    parser.add_argument("--every", type=int, default=500, help="steps of the denoiser between looks at the model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    things = load_things()
    pictures, shown = load_pictures(things, fetch(args.font))
    vae = train_vae(pictures, args.work, args.vae_steps)
    latents = standardise(vae, pictures)
    for unet, words in train_unet(latents, shown, args.work, args.steps, args.every):
        pipeline = assemble(vae, unet, words, things)
        save(pipeline, args.out)
    train_decoder(pipeline, Encoded(pictures, latents, shown), args.work, args.decoder_steps)
    save(pipeline, args.out)


if __name__ == "__main__":
    main()
