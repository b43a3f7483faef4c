"""LangChain's ChatOpenAI, told nothing but an address. Its packages are on PYTHONPATH; the argument is the address."""

from __future__ import annotations

import json
import sys

from langchain_openai import ChatOpenAI

chat = ChatOpenAI(model="poet", base_url=sys.argv[1], api_key="none", seed=1, max_completion_tokens=8)
whole = chat.invoke("春雨")
pieces = list(chat.stream("春雨"))
print(
    json.dumps(
        {
            "whole": whole.content,
            "tokens": whole.usage_metadata["total_tokens"],
            "pieces": [piece.content for piece in pieces],
        }
    )
)
