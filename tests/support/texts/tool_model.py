"""A random model whose chat template takes tools. What it writes is noise, so calls show that they are held to their
format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEMPLATE = """\
{%- if tools %}<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% endif %}
{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}
{%- for c in m.tool_calls or [] %}
{{- '\\n' if m.content or not loop.first }}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""As Qwen's."""


def tool(name: str, **properties: Any) -> dict[str, Any]:
    """A function of these arguments, all of them required, as OpenAI's clients send it."""
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": "A test.", "parameters": parameters}}


CITY = {"type": "string", "enum": ["杭州", "苏州"]}
DAYS = {"type": "integer", "minimum": 1, "maximum": 9}
TRIP = tool("trip", city=CITY, days=DAYS)
RAIN = tool("rain", city=CITY)
"""A random model would hardly ever end a text of any length."""


def save_tool_model(folder: Path, template: str = TEMPLATE, *, special: bool = False) -> Path:
    """A Llama of two layers, with a token for each byte and for each tag; those of calls are `special` or not."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from tests.support.texts.tokenizers import bytes_and

    backend = bytes_and("<|im_start|>", "<|im_end|>", special=True)
    tags = ["<tool_call>", "</tool_call>"]
    (backend.add_special_tokens if special else backend.add_tokens)(tags)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        bos_token_id=256,
        eos_token_id=257,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(bos_token_id=256, eos_token_id=257, do_sample=True)
    model.save_pretrained(folder)
    return folder
