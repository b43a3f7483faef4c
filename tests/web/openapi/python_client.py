"""A program on the Python client that is generated from our OpenAPI document: `shangcai_client` beside it. Prints what
it was answered; the first argument is the address."""

from __future__ import annotations

import json
import sys
import time

from shangcai_client import Client
from shangcai_client.api.generation import generate
from shangcai_client.api.jobs import generation
from shangcai_client.models import GenerationRequest, Job, PictureResult, Problem, TextResult


def shown(answer: object) -> str:
    match answer:
        case TextResult():
            return answer.text
        case PictureResult():
            return " ".join(picture.media_type for picture in answer.images)
        case Problem():
            return f"{answer.status} {answer.type_}: {answer.detail}"
    raise TypeError(type(answer))


def ended(client: Client, job: Job) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = generation.sync(job.id, client=client)
        if isinstance(found, Job) and found.state == "completed":
            return shown(found.result)
        time.sleep(0.02)
    raise TimeoutError(job.id)


def main() -> None:
    client = Client(sys.argv[1], raise_on_unexpected_status=True)
    poem = GenerationRequest(prompt="春")
    cat = GenerationRequest.from_dict({"prompt": "a cat", "kind": "image"})
    job = generate.sync(client=client, body=poem, prefer="respond-async")
    assert isinstance(job, Job)
    answers = {
        "text": shown(generate.sync(client=client, body=poem)),
        "picture": shown(generate.sync(client=client, body=cat)),
        "refused": shown(generate.sync(client=client, body=GenerationRequest(prompt="春", max_tokens=0))),
        "job": ended(client, job),
    }
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
