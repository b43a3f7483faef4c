"""`scripts/bench quality`: what number types and quantized weights cost in quality, and gain in speed and memory."""
