"""A hosted model's answers, through the OpenAI chat-completions protocol.

The key comes from an environment variable and is written nowhere. Requests are spaced to the configured rate; those
that fail for a passing reason (429, 5xx, a broken connection, no answer in time) are repeated with growing pauses,
any other refusal ends the run with the server's words. Finished questions are kept, so the same command continues.
"""

import asyncio
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import httpx

from benchmarks.carriers import Answers, BenchmarkError, Question
from benchmarks.generation.pace import Pace
from benchmarks.generation.progress import Progress, settings
from conf.loopback import is_loopback
from conf.schema.benchmark import BenchmarkConfig, ModelSource
from rollout.prompt.described import SchemaReader
from rollout.prompt.messages import TEMPLATES, Message
from rollout.prompt.renderer import SERIALISERS

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
PASSING = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
"""Status codes after which the same request may succeed."""


def ask(
    config: BenchmarkConfig, questions: Sequence[Question], denotation: Literal["spider", "bird"], output: Path
) -> Answers:
    """Asks what is not yet answered and returns all answers. Raises BenchmarkError."""
    model, key = f"{config.model.api} {config.model.name}", _key(config.model)
    started = time.perf_counter()
    with Progress(output, settings(config, questions, model), len(questions)) as progress:
        missing = [question for question in questions if question.position not in progress.done]
        if missing:
            asyncio.run(_ask_all(config, key, missing, denotation, progress))
        answers = progress.answers(questions, thinking=config.prompt.thinking)
        requests = sum(record["requests"] for record in progress.done.values())
    return Answers(source=model, answers=answers, seconds=time.perf_counter() - started, requests=requests)


async def _ask_all(
    config: BenchmarkConfig,
    key: str | None,
    questions: Sequence[Question],
    denotation: Literal["spider", "bird"],
    progress: Progress,
) -> None:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    prompts = _prompts(config, questions, denotation)
    async with _client(config.model, headers) as client:
        endpoint = Endpoint(config.model, client, key)
        slots = asyncio.Semaphore(config.model.concurrency)

        async def one(question: Question, messages: Sequence[Message]) -> None:
            async with slots:
                progress.add({"key": question.position} | await _question(config, endpoint, messages))

        try:
            async with asyncio.TaskGroup() as tasks:
                for question, messages in prompts:
                    tasks.create_task(one(question, messages))
        except* BenchmarkError as errors:
            done = len(progress.done)
            raise BenchmarkError(f"{errors.exceptions[0]}; the same command continues after {done} questions") from None


def _client(source: ModelSource, headers: Mapping[str, str]) -> httpx.AsyncClient:
    """Raises BenchmarkError for what the environment says of proxies and certificates, without repeating it: a proxy's
    address may hold a password.
    """
    through_proxy = not is_loopback(source.api or "")
    try:
        return httpx.AsyncClient(headers=headers, timeout=source.timeout_s, trust_env=through_proxy)
    except (ImportError, ValueError, OSError, httpx.InvalidURL):
        raise BenchmarkError(
            "a proxy or the certificates that the environment names cannot be used: HTTPS_PROXY, HTTP_PROXY and "
            "ALL_PROXY must be addresses as http://HOST:PORT, NO_PROXY names of hosts, SSL_CERT_FILE and SSL_CERT_DIR "
            "certificates that can be read"
        ) from None


def _key(source: ModelSource) -> str | None:
    """The key; None for a server that asks for none. Messages name the variable only if it exists: one that does not
    may be the key itself. Raises BenchmarkError.
    """
    key = os.environ.get(source.key_variable, "").strip()
    if not key and "key_variable" in source.model_fields_set:
        raise BenchmarkError(
            "model.key_variable names an environment variable that is not set: export it with the key, or leave "
            "model.key_variable out for a server that asks for none"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise BenchmarkError(f"the key in {source.key_variable} holds characters that no header can carry")
    return key or None


def _prompts(
    config: BenchmarkConfig, questions: Sequence[Question], denotation: Literal["spider", "bird"]
) -> list[tuple[Question, Sequence[Message]]]:
    """All prompts before the first request is paid for. Raises DatabaseUnreadable."""
    reader, serialise = SchemaReader(config.prompt.example_values), SERIALISERS[config.prompt.schema_format]
    render = TEMPLATES[config.prompt.template]
    return [
        (question, render(config.prompt, question.task(denotation), serialise(reader.read(question.databases[0]))))
        for question in questions
    ]


async def _question(config: BenchmarkConfig, endpoint: "Endpoint", messages: Sequence[Message]) -> dict[str, Any]:
    """One question's record: n sampled completions, and the greedy one where it is asked for."""
    sampling = config.sampling
    options = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        config.model.budget_name: sampling.max_tokens,
    }
    cost = {"prompt_tokens": 0, "requests": 0}
    completions = await endpoint.choices(messages, sampling.n, options, cost)
    greedy = await endpoint.choices(messages, 1, options | {"temperature": 0.0}, cost) if sampling.greedy else [None]
    return {"completions": completions, "greedy": greedy[0]} | cost


class Endpoint:
    """One model behind one URL."""

    def __init__(self, source: ModelSource, client: httpx.AsyncClient, key: str | None = None) -> None:
        assert source.api is not None
        self._source = source
        self._client = client
        self._key = key
        self._url = source.api.rstrip("/") + "/chat/completions"
        self._pace = Pace(source.requests_per_minute)

    async def choices(
        self, messages: Sequence[Message], n: int, options: Mapping[str, Any], cost: dict[str, int]
    ) -> list[dict[str, Any]]:
        """`n` completions, from as many requests as the server needs; adds to `cost`. Raises BenchmarkError."""
        found: list[dict[str, Any]] = []
        while len(found) < n:
            wanted = n - len(found) if self._source.batch_choices else 1
            body = {"model": self._source.name, "messages": list(messages), **options}
            if wanted > 1:
                body["n"] = wanted
            reply = await self._post(body, cost)
            found += _completions(reply, self._url)
            cost["prompt_tokens"] += _tokens(reply, "prompt_tokens")
        return found[:n]

    async def _post(self, body: Mapping[str, Any], cost: dict[str, int]) -> dict[str, Any]:
        pause = FIRST_PAUSE_S
        reason = ""
        for attempt in range(self._source.retries + 1):
            if attempt:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            await self._pace.turn()
            cost["requests"] += 1
            try:
                response = await self._client.post(self._url, json=body)
            except httpx.RequestError as error:  # DecodingError, of a broken body, is no TransportError
                reason = f"{type(error).__name__} {error}".strip()
                continue
            if response.status_code == 200:
                return _json(response, self._words(response), self._url)
            reason = f"status {response.status_code}: {self._words(response)[:300]}"
            if response.status_code not in PASSING:
                raise BenchmarkError(_refusal(self._source, response.status_code, self._url, reason))
            pause = max(pause, _retry_after(response))
        raise BenchmarkError(
            f"{self._url} did not answer after {self._source.retries + 1} requests, the last: {reason}"
        )

    def _words(self, response: httpx.Response) -> str:
        """What the server says; some repeat the key that they refuse."""
        text = response.text.strip()
        return text.replace(self._key, "...") if self._key else text


def _refusal(source: ModelSource, status: int, url: str, reason: str) -> str:
    if status in (401, 403):
        return f"{url} refused the key in the environment variable {source.key_variable} ({reason})"
    hint = "; if it refuses n > 1, set model.batch_choices=false" if source.batch_choices and status == 400 else ""
    return f"{url} refused the request ({reason}){hint}"


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the server asks for, 0 where it asks for none."""
    text = response.headers.get("retry-after", "")
    return min(float(text), LONGEST_PAUSE_S) if text.replace(".", "", 1).isdigit() else 0.0


def _json(response: httpx.Response, words: str, url: str) -> dict[str, Any]:
    try:
        reply = response.json()
    except ValueError as error:
        raise BenchmarkError(f"{url}: JSON expected, found {words[:200]!r}") from error
    if not isinstance(reply, dict):
        raise BenchmarkError(f"{url}: a JSON object expected, found {type(reply).__name__}")
    return reply


def _completions(reply: Mapping[str, Any], url: str) -> list[dict[str, Any]]:
    """The reply's choices; its completion tokens are shared out evenly, since the protocol reports only their sum."""
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:
        raise BenchmarkError(f"{url}: a reply with choices expected, found {json.dumps(reply)[:200]}")
    tokens = _tokens(reply, "completion_tokens")
    shares = [tokens // len(choices) + (i < tokens % len(choices)) for i in range(len(choices))]
    return [
        {"text": _content(choice, url), "logprob": None, "tokens": share}
        for choice, share in zip(choices, shares, strict=True)
    ]


def _content(choice: object, url: str) -> str:
    """The text of one choice; '' where a model only reasoned or refused."""
    message = choice.get("message") if isinstance(choice, dict) else None
    content = message.get("content") if isinstance(message, dict) else 0
    if content is not None and not isinstance(content, str):
        raise BenchmarkError(f"{url}: choices with a message and its text expected, found {json.dumps(choice)[:200]}")
    return content or ""


def _tokens(reply: Mapping[str, Any], name: str) -> int:
    """A count of the reply's usage; 0 where the server reports none."""
    usage = reply.get("usage")
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) else 0
