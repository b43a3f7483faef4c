"""OpenAI's plain completions: the body of a request."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo, ValidatorFunctionWrapHandler, WrapValidator, field_validator

from contract.fields import PromptText, one_or_list, only
from contract.limits import PROMPTS
from contract.openai.fields import TextRequest
from contract.request import GenerationRequest
from contract.texts.sampling import TopLogprobs


def _as_prompts(value: Any, prompts: ValidatorFunctionWrapHandler) -> Any:
    """OpenAI takes one prompt or several, as texts or as token ids; here they are texts."""
    several = value if isinstance(value, list) else [value]
    if any(isinstance(one, int | list) for one in several):
        raise ValueError("must be a text or a list of texts; token ids are not taken here")
    return one_or_list(value, prompts)


class CompletionRequest(TextRequest):
    """Body of `POST /v1/completions`: prompts go to the model as they are, without a chat template."""

    prompt: Annotated[
        list[PromptText],
        Field(min_length=1, max_length=PROMPTS),
        WrapValidator(_as_prompts, json_schema_input_type=PromptText | list[PromptText]),
    ]
    logprobs: TopLogprobs | None = None  # OpenAI takes 5 at most
    # Accepted only where they ask for what is done anyway
    best_of: Annotated[int | None, AfterValidator(only(1))] = None
    echo: Annotated[bool | None, AfterValidator(only(False))] = None
    suffix: Annotated[str | None, AfterValidator(only(""))] = None
    top_logprobs: Annotated[int | None, AfterValidator(only(None))] = None

    @field_validator("prompt")
    @classmethod
    def _not_too_many(cls, prompts: list[str], info: ValidationInfo) -> list[str]:
        if len(prompts) * (info.data.get("n") or 1) > PROMPTS:
            raise ValueError(f"may have at most {PROMPTS} texts written, n of each")
        return prompts

    @property
    def names(self) -> dict[str, str]:
        return {"top_logprobs": "logprobs"}

    @property
    def requests(self) -> list[GenerationRequest]:
        asked = {"raw": True, "top_logprobs": self.logprobs}
        return [request for prompt in self.prompt for request in self._each({"prompt": prompt, **asked})]
