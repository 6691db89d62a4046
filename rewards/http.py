"""The reward server over HTTP: python -m rewards.server databases=ROOT [host=.. port=.. reward=finer|strict]

Ray Serve and FastAPI in front of the same reward actors that a training run uses, for other trainers.
  POST /score    {"cases": [{"id", "db_id", "gold_sqls", "completion", "denotation"}, ..]} -> {"results": [..]}, each
                 as rewards.score reads and writes it
  GET  /healthz  200 while completions can be scored; before that it waits for the reward actors
  GET  /metrics  queue, restarts and counters for Prometheus

Listens on loopback. With a token in QUORUM_REWARD_TOKEN every path but /healthz asks for it; any other address needs
one. An unscorable completion has "total": null: leave it out of the loss, never take it for 0. Its "cause" says whose
doing that is: data, policy or infrastructure.
"""

import asyncio
import hmac
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import httpx
import ray
from fastapi import FastAPI, HTTPException, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from ray import serve
from ray.serve.config import HTTPOptions

from conf.cli import run_entrypoint
from conf.errors import ConfigError, QuorumError
from conf.schema.reward_http import RewardHttpConfig
from rewards.actor import ray_actors
from rewards.carriers import RewardResult
from rewards.cases import Case, CaseInvalid, load_json, parse_case
from rewards.client import RewardClient, RewardStats
from rewards.preflight import check_rewards
from rewards.ray_start import start_private_ray
from rewards.score import as_record
from rewards.seat import RewardServerLost

APPLICATION = "quorum-rewards"
app = FastAPI(title="Quorum rewards", docs_url=None, redoc_url=None)


class RewardHttp:
    """One replica: checks requests and hands groups to the reward client."""

    def __init__(self, config: RewardHttpConfig, token: str | None) -> None:
        self._config = config
        self._root = Path(config.databases).resolve()
        self._token = token
        self._client = RewardClient(config.reward, ray_actors(config.reward))

    @app.post("/score")
    async def score(self, request: Request) -> Response:
        """Results in the order of the cases. 422: a case is wrong, nothing was scored. 503: no reward actor is
        alive."""
        self._authorise(request)
        cases = await self._cases(request)
        try:
            results = await self._scored(cases)
            await self._client.commit()
        except RewardServerLost as error:
            raise HTTPException(503, str(error)) from error
        records = [as_record(case.id, result) for case, result in zip(cases, results, strict=True)]
        # FastAPI's own encoder gives up on an id of deep lists that JSON takes.
        return Response(json.dumps({"results": records}), media_type="application/json")

    @app.get("/healthz")
    async def health(self) -> dict[str, str]:
        """Liveness: no token needed."""
        try:
            await self._client.start()
        except RewardServerLost as error:
            raise HTTPException(503, str(error)) from error
        if self._client.failure is not None:
            raise HTTPException(503, str(self._client.failure))
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics(self, request: Request) -> Response:
        self._authorise(request)
        return Response(exposition(self._client.stats()), media_type=CONTENT_TYPE_LATEST)

    def _authorise(self, request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        if self._token is not None and not hmac.compare_digest(given, self._token.encode()):
            raise HTTPException(401, "a bearer token is needed", headers={"WWW-Authenticate": "Bearer"})

    async def _cases(self, request: Request) -> list[Case]:
        limit = self._config.max_request_mib * 2**20
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise HTTPException(413, f"the request is larger than {self._config.max_request_mib} MiB")
        return parse_request(bytes(body), self._root)

    async def _scored(self, cases: Sequence[Case]) -> list[RewardResult]:
        """Cases of one task travel as one group."""
        groups: dict[tuple[str, str], list[int]] = {}
        for position, case in enumerate(cases):
            groups.setdefault((case.task.id, case.task.denotation), []).append(position)
        results: dict[int, RewardResult] = {}

        async def one(positions: list[int]) -> None:
            scored = await self._client.score(cases[positions[0]].task, [cases[i].completion for i in positions])
            results.update(zip(positions, scored, strict=True))

        await asyncio.gather(*(one(positions) for positions in groups.values()))
        return [results[position] for position in range(len(cases))]


def parse_request(body: bytes, root: Path) -> list[Case]:
    """The cases of a /score request. Raises HTTPException 422 that names the first wrong one."""
    try:
        value = load_json(body)
    except (ValueError, RecursionError):
        raise HTTPException(422, "the body is not valid JSON") from None
    entries = value.get("cases") if isinstance(value, dict) else None
    if not isinstance(entries, list):
        raise HTTPException(422, 'the body is not {"cases": [..]}')
    cases = []
    for number, entry in enumerate(entries, 1):
        try:
            cases.append(parse_case(entry, root))
        except CaseInvalid as error:
            raise HTTPException(422, f"case {number}: {error}") from error
    return cases


def exposition(stats: RewardStats) -> bytes:
    """Prometheus text of the client's statistics, one gauge each."""
    registry = CollectorRegistry()
    for name, value in asdict(stats).items():
        Gauge(f"quorum_reward_{name}", name.replace("_", " "), registry=registry).set(value)
    return generate_latest(registry)


def run(config: RewardHttpConfig) -> int:
    """Serves until SIGINT or SIGTERM."""
    token = os.environ.get(config.token_variable) or None
    if token is None and not config.loopback:
        raise ConfigError(f"host={config.host} is open to others: set a bearer token in {config.token_variable}")
    if not Path(config.databases).is_dir():
        raise QuorumError(f"databases={config.databases}: no such folder")
    check_rewards(config.reward)
    _check_port(config)
    stop = threading.Event()
    start_private_ray(os.cpu_count() or 1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        serve.start(http_options=HTTPOptions(host=config.host, port=config.port))
        serve.run(_deployment(config).bind(config, token), name=APPLICATION, route_prefix="/")
        _check_health(config)
        sys.stdout.write(f"serving rewards on http://{config.host}:{config.port}\n")
        sys.stdout.flush()
        stop.wait()
        return 0
    finally:
        serve.shutdown()
        ray.shutdown()


def _deployment(config: RewardHttpConfig) -> serve.Deployment:
    ingress = serve.ingress(app)(RewardHttp)
    return serve.deployment(
        ingress,
        name="rewards",
        max_ongoing_requests=config.max_concurrent_requests,
        ray_actor_options={"num_cpus": 0},
    )


def _check_health(config: RewardHttpConfig) -> None:
    """Waits for the reward actors. Raises QuorumError with what keeps them from starting."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    address = httpx.URL(scheme="http", host=host, port=config.port, path="/healthz")
    reply = httpx.get(address, timeout=None, trust_env=False)
    if reply.status_code == 503:
        raise QuorumError(reply.json()["detail"])
    reply.raise_for_status()


def _check_port(config: RewardHttpConfig) -> None:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            raise QuorumError(f"cannot listen on {config.host}:{config.port}: {error.strerror}") from error


def main(arguments: Sequence[str]) -> int:
    return run_entrypoint(RewardHttpConfig, "reward_http", run, __doc__ or "", arguments)
