"""Structures as grammars, as llguidance reads them: which texts they allow, and which they refuse."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from predictor.engine.tasks import Choice, JsonSchema, Lark, Regex, Structure
from predictor.text.output.reasoning import ReasoningTags
from predictor.text.structure.grammar import grammar, json_of, verbatim

OBJECT = JsonSchema({"type": "object"})
THINK = ReasoningTags("<think>", "</think>")
BEGUN = ReasoningTags("<think>", "</think>", begun=True)


@cache
def byte_tokenizer() -> Any:
    from llguidance import LLTokenizer

    return LLTokenizer("byte")


def allows(form: Any, text: str, reasoning: ReasoningTags | None = None) -> bool:
    from llguidance import LLMatcher

    matcher = LLMatcher(byte_tokenizer(), grammar(Structure(form, "field"), reasoning), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    tokens = list(text.encode())
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ('{"a":1,"b":"x"}', True),
        ('{"a": 1, "b": "x"}', True),  # as most models write it
        ('{"a":  1}', False),
        ('{"a":1,\n"b":2}', False),
        (' {"a":1}', False),
        ('{"a":1} ', False),
        ('{"b":"\\u0001\\n月"}', True),
        ("[1]", False),
    ],
)
def test_json_has_no_white_space_but_a_space_after_a_separator(text: str, allowed: bool) -> None:
    assert allows(OBJECT, text) is allowed


def test_clients_do_not_set_the_options_of_the_library() -> None:
    form = JsonSchema({"type": "object", "x-guidance": {"whitespace_flexible": True, "lenient": True}})

    assert not allows(form, '{"a"  :  1}')


@pytest.mark.parametrize(
    ("pattern", "matches", "differs"),
    [
        ("a/b", "a/b", "ab"),
        (r"a\/b", "a/b", r"a\/b"),
        (r"\\/", "\\/", "/"),
        ("[/]+", "//", ""),
        ("a\nb", "a\nb", "ab"),
        (r"^\d{2,3}$", "123", "1"),
        ("//.*", "// x", "x"),  # no comment
        ("#.", "#x", ""),
        (r"(yes|no)( ,maybe)?", "no ,maybe", "maybe"),
        ("[一-龥]{2}", "明月", "moon"),
        ('"', '"', ""),
    ],
)
def test_a_whole_text_matches_a_regular_expression(pattern: str, matches: str, differs: str) -> None:
    assert allows(Regex(pattern), matches)
    assert not allows(Regex(pattern), differs)
    assert not allows(Regex(pattern), matches + "\n")


@pytest.mark.parametrize(
    "chosen", ["a", "ab", 'quo"te', "back\\slash", "a/b", "two\nlines", "月", " padded ", "| b", "\\n"]
)
def test_a_choice_is_one_of_the_texts_to_the_letter(chosen: str) -> None:
    form = Choice(("a", "ab", 'quo"te', "back\\slash", "a/b", "two\nlines", "月", " padded ", "| b", "\\n"))

    assert allows(form, chosen)
    assert not allows(form, chosen + "!")
    assert not allows(form, "")


@pytest.mark.parametrize(
    "text", ['{"a":1}', '<think>so</think>{"a":1}', '<think>\n{"a" </thin <b>\n</think>\n\n{"a":1}']
)
def test_a_model_may_reason_first(text: str) -> None:
    assert allows(OBJECT, text, THINK)


@pytest.mark.parametrize(
    "text", ["<think>so</think>so", "<think>so", 'so</think>{"a":1}', "<think></think>" + "\n" * 5 + "{}"]
)
def test_only_reasoning_is_free(text: str) -> None:
    assert not allows(OBJECT, text, THINK)


def test_a_reasoning_that_the_prompt_has_begun_comes_first() -> None:
    assert allows(OBJECT, 'so\n</think>\n\n{"a":1}', BEGUN)
    assert not allows(OBJECT, '{"a":1}', BEGUN)
    # The first such tag ends it.
    assert not allows(OBJECT, 'so</think>so</think>{"a":1}', BEGUN)


def test_tags_may_be_special_tokens() -> None:
    hidden = {7: "<|tag>", 8: "<end|>"}

    assert verbatim("<|tag>thought", hidden) == '<[7]> "thought"'
    assert verbatim("<end|>", hidden) == "<[8]>"
    tags = ReasoningTags("<|tag>thought", "<end|>", hidden=hidden)
    start = grammar(Structure(OBJECT, ""), tags).splitlines()[1]
    assert start == 'start: (<[7]> "thought" reasoning <[8]> margin)? answer'


def test_rules_say_what_nothing_else_does() -> None:
    call = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    rules = f"""
    answer: "<call>\\n" arguments "\\n</call>"
    arguments: %json {json_of(call)}
    """

    assert allows(Lark(rules), '<call>\n{"n": 12}\n</call>')
    assert not allows(Lark(rules), '<call>\n{"n": "x"}\n</call>')
    assert allows(Lark(rules), 'so</think><call>\n{"n":1}\n</call>', BEGUN)
