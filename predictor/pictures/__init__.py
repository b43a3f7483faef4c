"""Pictures: any text-to-image pipeline of diffusers, batched by denoising step."""
