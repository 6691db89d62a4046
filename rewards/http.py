"""The reward server over HTTP: python -m rewards.server databases=ROOT [host=.. port=.. reward=finer|strict]

Ray Serve and FastAPI in front of the same reward actors that a training run uses, for other trainers.
  POST /score    {"cases": [{"id", "db_id", "gold_sqls", "completion", "denotation"}, ..]} -> {"results": [..]}, each
                 as rewards.score reads and writes it
  GET  /healthz  200 while completions can be scored; before that it waits for the reward actors
  GET  /metrics  queue, restarts and counters for Prometheus

Listens on loopback, where only this machine's own names are answered (conf/http_access.py). With a token in
QUORUM_REWARD_TOKEN every path but /healthz asks for it; any other address needs one. An unscorable completion has
"total": null: leave it out of the loss, never take it for 0. Its "cause" says whose doing that is: data, policy or
infrastructure.
"""

import asyncio
import json
import os
import signal
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
from conf.listening import authority, check_port
from conf.schema.reward_http import RewardHttpConfig
from rewards.actor import ray_actors
from rewards.carriers import RewardResult
from rewards.cases import Case, CaseInvalid, load_json, parse_case
from rewards.client import RewardClient, RewardStats
from rewards.http_proxy import HEALTH, access, variables
from rewards.preflight import check_rewards
from rewards.ray_start import start_private_ray
from rewards.score import as_record
from rewards.seat import RewardServerLost

APPLICATION = "quorum-rewards"
app = FastAPI(title="Quorum rewards", docs_url=None, redoc_url=None, openapi_url=None)


class RewardHttp:
    """One replica: reads requests, which the proxy has admitted (rewards/http_proxy.py), and hands groups to the
    reward client."""

    def __init__(self, config: RewardHttpConfig) -> None:
        self._root = Path(config.databases).resolve()
        self._client = RewardClient(config.reward, ray_actors(config.reward))

    @app.post("/score")
    async def score(self, request: Request) -> Response:
        """Results in the order of the cases. 422: a case is wrong, nothing was scored. 503: no reward actor is
        alive."""
        cases = parse_request(await request.body(), self._root)
        try:
            results = await self._scored(cases)
            await self._client.commit()
        except RewardServerLost as error:
            raise HTTPException(503, str(error)) from error
        records = [as_record(case.id, result) for case, result in zip(cases, results, strict=True)]
        # FastAPI's own encoder gives up on an id of deep lists that JSON takes.
        return Response(json.dumps({"results": records}), media_type="application/json")

    @app.get(HEALTH)
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
    async def metrics(self) -> Response:
        return Response(exposition(self._client.stats()), media_type=CONTENT_TYPE_LATEST)

    async def _scored(self, cases: Sequence[Case]) -> list[RewardResult]:
        """Cases of one task travel as one group."""
        groups: dict[tuple[str, str, bool], list[int]] = {}
        for position, case in enumerate(cases):
            groups.setdefault((case.task.id, case.task.denotation, case.task.format_asked), []).append(position)
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
    if not access(config, os.environ).tokens and not config.loopback:
        raise ConfigError(f"host={config.host} is open to others: set a bearer token in {config.token_variable}")
    if not Path(config.databases).is_dir():
        raise QuorumError(f"databases={config.databases}: no such folder")
    check_rewards(config.reward)
    check_port(config.host, config.port, host_setting="host=", port_setting="port=")
    os.environ.update(variables(config))
    stop = threading.Event()
    start_private_ray(os.cpu_count() or 1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        serve.start(http_options=HTTPOptions(host=config.host, port=config.port))
        serve.run(_deployment(config).bind(config), name=APPLICATION, route_prefix="/")
        _check_health(config)
        where = authority(config.host, config.port)
        sys.stdout.write(f"serving rewards on http://{where}{_form(config)}\n")
        sys.stdout.flush()
        stop.wait()
        return 0
    finally:
        serve.shutdown()
        ray.shutdown()


def _form(config: RewardHttpConfig) -> str:
    """What an answer must look like where its form decides whether it earns anything."""
    form = config.reward.format
    if not (form.enabled and form.thinking and config.reward.format_gate):
        return ""
    return (
        f"; an answer is <think>more than {form.min_reasoning_chars} characters</think>SQL, anything else earns 0: "
        'give cases "thinking": false where the prompt asks for no <think>'
    )


def _deployment(config: RewardHttpConfig) -> serve.Deployment:
    ingress = serve.ingress(app)(RewardHttp)
    return serve.deployment(
        ingress,
        name="rewards",
        max_ongoing_requests=config.max_concurrent_requests,
        ray_actor_options={"num_cpus": 0},
    )


def _check_health(config: RewardHttpConfig) -> None:
    """Waits for the reward actors, and makes sure that the proxy checks who asks.

    Raises QuorumError with what keeps the actors from starting.
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    address = httpx.URL(scheme="http", host=host, port=config.port, path=HEALTH)
    reply = httpx.get(address, timeout=None, trust_env=False)
    if reply.status_code == 503:
        raise QuorumError(reply.json()["detail"])
    reply.raise_for_status()
    # Ray takes the checks by a name in its environment: a Ray that no longer does would answer everyone.
    foreign = httpx.get(address.copy_with(path="/-/routes"), headers={"Host": "elsewhere.invalid"}, trust_env=False)
    if foreign.status_code not in (401, 403):
        raise QuorumError("this version of Ray Serve does not take the server's checks of who asks: use the locked one")


def main(arguments: Sequence[str]) -> int:
    return run_entrypoint(RewardHttpConfig, "reward_http", run, __doc__ or "", arguments)
