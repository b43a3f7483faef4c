"""The format of calls, as chat templates of many families show it."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from predictor.text.output.tool_format import ToolFormat, takes_tools, tool_format
from tests.support.texts.tokenizers import bytes_and

TOLD = "{% if tools %}<|system|>{{ tools | tojson }}{{ told }}<|end|>{% endif %}"
TURNS = (
    TOLD
    + "{% for m in messages %}<|{{ m.role }}|>\n{% if m.tool_calls %}CALLS{% else %}{{ m.content }}{% endif %}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
EACH = "{% for c in m.tool_calls %}"
NAME, ARGUMENTS = "{{ c.function.name }}", "{{ c.function.arguments | tojson }}"


def tokenizer(template: str | None, *special: str) -> PreTrainedTokenizerFast:
    backend = bytes_and("<|end|>", *special, special=True)
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")
    made.chat_template = template
    return made


def turns(calls: str) -> str:
    return "{% set newline = '\n' %}" + TURNS.replace("CALLS", calls)


def found(template: str, *special: str) -> ToolFormat:
    form = tool_format(tokenizer(template, *special))
    assert form is not None
    return form


HERMES = (
    EACH
    + '{{ newline }}<tool_call>\n{"name": "'
    + NAME
    + '", "arguments": '
    + ARGUMENTS
    + "}\n</tool_call>{% endfor %}"
)
REVERSED = (
    EACH
    + '{{ newline }}<tool_call>\n{ "arguments": '
    + ARGUMENTS
    + ', "name": "'
    + NAME
    + '"}\n</tool_call>{% endfor %}'
)
THINKING = "<think>\n\n</think>\n" + HERMES


@pytest.mark.parametrize("calls", [HERMES, REVERSED, THINKING], ids=["Qwen", "Hermes", "Qwen3"])
def test_tags_around_json(calls: str) -> None:
    assert found(turns(calls)) == ToolFormat(
        "<tool_call>",
        '<tool_call>\n{"name": "',
        '", "arguments": ',
        '}\n</tool_call>\n<tool_call>\n{"name": "',
        "}\n</tool_call>",
    )


def test_plain_json_of_one_call() -> None:
    """Llama 3's, whose template refuses several."""
    one = '{% set c = m.tool_calls[0] %}{"name": "' + NAME + '", "parameters": ' + ARGUMENTS + "}"
    template = turns("{% if m.tool_calls | length > 1 %}{{ raise_exception('one') }}{% endif %}" + one)

    assert found(template) == ToolFormat("", '{"name": "', '", "parameters": ', None, "}")


def test_a_list_between_special_tags() -> None:
    """Nemotron's and Granite's."""
    calls = (
        "<TOOLCALL>["
        + EACH
        + '{"name": "'
        + NAME
        + '", "arguments": '
        + ARGUMENTS
        + "}{% if not loop.last %}, {% endif %}{% endfor %}]</TOOLCALL>"
    )
    form = found(turns(calls), "<TOOLCALL>", "</TOOLCALL>")

    assert form == ToolFormat(
        "<TOOLCALL>",
        '<TOOLCALL>[{"name": "',
        '", "arguments": ',
        '}, {"name": "',
        "}]</TOOLCALL>",
        {257: "<TOOLCALL>", 258: "</TOOLCALL>"},
    )


def test_names_between_special_tokens() -> None:
    """DeepSeek's."""
    calls = "<|calls|>" + EACH + "<|call|>" + NAME + "<|sep|>" + ARGUMENTS + "<|end_call|>{% endfor %}<|end_calls|>"
    form = found(turns(calls), "<|calls|>", "<|call|>", "<|sep|>", "<|end_call|>", "<|end_calls|>")

    assert (form.trigger, form.first, form.middle) == ("<|calls|>", "<|calls|><|call|>", "<|sep|>")
    assert (form.following, form.last) == ("<|end_call|><|call|>", "<|end_call|><|end_calls|>")
    assert len(form.hidden) == 5


def test_a_format_that_is_told_and_not_shown() -> None:
    """SmolLM3's template leaves out the calls of earlier turns."""
    told = '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    template = turns("{{ m.content }}").replace("{{ told }}", told)

    assert found(template) == found(turns(HERMES))


@pytest.mark.parametrize(
    "calls",
    [
        EACH
        + "<tool_call>\n<function="
        + NAME
        + ">\n<parameter=x>\n1\n</parameter></function>\n</tool_call>{% endfor %}",
        "[TOOL_CALLS]" + EACH + NAME + "[CALL_ID]{{ c.id }}[ARGS]" + ARGUMENTS + "{% endfor %}",
        "<|calls|>"
        + EACH
        + "<|call|>"
        + NAME
        + ":{{ loop.index0 }}<|sep|>"
        + ARGUMENTS
        + "<|end_call|>{% endfor %}<|x|>",
        "[" + EACH + NAME + "(x=1){% endfor %}]",
        EACH + '{"name": "' + NAME + '", "arguments": {{ c.function.arguments }}}{% endfor %}',
        "Action: " + EACH + NAME + "\nInput: " + ARGUMENTS + "{% endfor %}",
        "{{ raise_exception('no') }}",
        "",
    ],
    ids=["Qwen3-Coder", "Mistral", "Kimi K2", "pythonic", "Phi", "ReAct", "refused", "left out"],
)
def test_other_formats_are_not_read(calls: str) -> None:
    made = tokenizer(turns(calls), "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]")

    assert takes_tools(made)
    assert tool_format(made) is None


def test_a_format_that_is_told_otherwise_than_shown_is_not_read() -> None:
    """Phi 4 mini's."""
    shown = EACH + '{"name": "' + NAME + '", "arguments": ' + ARGUMENTS + "}{% endfor %}"

    assert found(turns(shown)).trigger == ""
    assert tool_format(tokenizer(turns(shown).replace("{{ told }}", 'functools[{"name"…}]'))) is None


@pytest.mark.parametrize(
    "template",
    [None, "{% for m in messages %}{{ m.content }}{% endfor %}", "{{ raise_exception('no') }}", "{{ 1 / 0 }}"],
)
def test_templates_that_take_no_tools(template: Any) -> None:
    assert not takes_tools(tokenizer(template))
