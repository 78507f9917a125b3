"""Serve the verifiers by HTTP, for `--reward.remote_url http://HOST:PORT/get_reward`.

All engines then grade in one place. The nodes that generate need neither the verifiers' packages nor a sandbox.
"""

from __future__ import annotations

import asyncio
import json
import math
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, ValidationError

from riskpo_openrlhf import __version__
from riskpo_openrlhf.verifiers.labels import write_label
from riskpo_openrlhf.verifiers.reward_func import LOGGED, grade

PATIENCE = 0.5  # seconds after which a response no longer counts as one of `threads`
MOST_SLOW = 64  # responses that take longer, at once

PROBE = ("1+1=\\boxed{2}", "1+1=", write_label("math", "2"))


class Batch(BaseModel):
    """The request that OpenRLHF posts: each list has one entry a response."""

    query: list[str]
    prompts: list[str]
    labels: list[str]


def create_app(threads: int = 16, max_items: int = 1024, max_bytes: int = 64 * 2**20) -> FastAPI:
    """Create the service.

    `POST /get_reward` takes a `Batch`. It answers `rewards`, `scores` and `extra_logs` as `reward_func.grade` does,
    and `error`, the verifier's message or null. A batch of one, as OpenRLHF sends it, gets numbers; others get lists.
    A response without a verdict has score NaN. NaN is not standard JSON, but Python's readers accept it. `GET /health`
    grades an easy answer and gives status 200, or 503 with the reason.

    Args:
        threads: responses graded at once. One that takes longer than `PATIENCE` no longer counts, so that slow
            responses do not hold up easy ones.
        max_items: limit of responses in a batch; more get status 413.
        max_bytes: limit of a request's size; more gets status 413, before it is read to the end.
    """
    app = FastAPI(title="RiskPO verifiers", version=__version__)
    pool = ThreadPoolExecutor(threads + MOST_SLOW, thread_name_prefix="verifier")
    turns = asyncio.Semaphore(threads)

    async def in_turn(*item: str) -> dict:
        async with turns:
            grading = asyncio.get_running_loop().run_in_executor(pool, _graded, *item)
            await asyncio.wait([grading], timeout=PATIENCE)
        return await grading

    @app.post("/get_reward")
    async def get_reward(request: Request) -> Response:
        batch = _parsed(await _body(request, max_bytes), max_items)
        items = zip(batch.query, batch.prompts, batch.labels, strict=True)
        graded = await asyncio.gather(*(in_turn(*item) for item in items))
        answer = graded[0] if len(graded) == 1 else _joined(graded)
        return Response(json.dumps(answer), media_type="application/json")

    @app.get("/health")
    async def health() -> dict:
        graded = await in_turn(*PROBE)
        if graded["scores"] != 1.0:
            raise HTTPException(503, graded["error"] or "an easy answer was not graded right")
        return {"status": "ok", "version": __version__}

    return app


async def _body(request: Request, most: int) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise HTTPException(413, f"the request is larger than {most} bytes: send fewer responses at once")
        chunks.append(chunk)
    return b"".join(chunks)


def _parsed(body: bytes, max_items: int) -> Batch:
    try:
        batch = Batch.model_validate_json(body)
    except ValidationError as error:
        raise HTTPException(422, error.errors(include_input=False, include_url=False, include_context=False)) from None
    counts = {len(batch.query), len(batch.prompts), len(batch.labels)}
    if len(counts) != 1 or 0 in counts:
        raise HTTPException(422, "query, prompts and labels must be lists of one length, with at least one entry")
    if len(batch.query) > max_items:
        raise HTTPException(413, f"{len(batch.query)} responses in a request; at most {max_items}")
    return batch


def _graded(query: str, prompt: str, label: str) -> dict:
    try:
        return {**grade(query, prompt, label), "error": None}
    except Exception as error:  # a bad label must not cost the batch its verdicts; the trainer gets the message
        logs = dict.fromkeys(LOGGED.values(), 0.0)
        return {"rewards": 0.0, "scores": math.nan, "extra_logs": logs, "error": f"{type(error).__name__}: {error}"}


def _joined(graded: list[dict]) -> dict:
    answer = {key: [item[key] for item in graded] for key in ("rewards", "scores", "error")}
    answer["extra_logs"] = {key: [item["extra_logs"][key] for item in graded] for key in LOGGED.values()}
    return answer
