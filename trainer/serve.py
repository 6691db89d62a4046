"""`python -m trainer.serve RUN [--host H --port P] [-- VLLM OPTIONS]`: vLLM's OpenAI server on a run's policy.

This process becomes vLLM's: signals and exit code are its own. Anything but the loopback address needs a key, which
vLLM takes from VLLM_API_KEY.
"""

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

from conf.errors import QuorumError
from conf.short_folder import new_short_folder, room_in
from conf.terminal import tell
from rollout.vllm_backend import SOCKET
from trainer.finished import Trained, trained

LOOPBACK = "127.0.0.1"
KEY = "VLLM_API_KEY"


class ServeRefused(QuorumError):
    """The server would be open to others, or vLLM is not installed."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer.serve", description="Serve a run's policy with vLLM.")
    parser.add_argument("run", type=Path, help="run folder, such as runs/quickstart")
    parser.add_argument("--checkpoint", default="last", help="last (default), best, or a step")
    parser.add_argument("--host", default=LOOPBACK, help=f"address (default: {LOOPBACK}; any other needs {KEY})")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000")
    parser.add_argument("more", nargs="*", metavar="-- OPTION", help="passed to vLLM's server")
    return parser


def command(chosen: Trained, *, host: str, port: int, more: Sequence[str] = ()) -> list[str]:
    """The command of vLLM's OpenAI server for a trained policy, with the engine settings that it was trained with."""
    engine, run = chosen.config.rollout.engine, chosen.config.run
    length = engine.max_model_len or chosen.config.prompt.max_tokens + chosen.config.rollout.sampling.max_tokens
    line = [
        # What `vllm serve` runs, without the working directory on its path; that command itself needs a distribution
        # named vllm, and the CPU build's is not.
        *(sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server", "--model", str(chosen.policy.resolve())),
        *("--served-model-name", run.name, "--host", host, "--port", str(port)),
        *("--dtype", engine.dtype, "--max-model-len", str(length), "--max-num-seqs", str(engine.max_num_seqs)),
        *("--tensor-parallel-size", str(engine.tensor_parallel_size)),
        # Sampling is the client's to choose, as in training.
        *("--generation-config", "vllm"),
    ]
    return [*line, *(["--enforce-eager"] if engine.enforce_eager else []), *more]


def environment(chosen: Trained) -> dict[str, str]:
    """Variables beside the user's own. Raises NoShortFolder."""
    engine = chosen.config.rollout.engine
    common = {"VLLM_NO_USAGE_STATS": "1"}
    if not room_in(tempfile.gettempdir(), SOCKET):
        common["VLLM_RPC_BASE_PATH"] = os.environ.get("VLLM_RPC_BASE_PATH") or new_short_folder()
    if chosen.config.cluster.accelerator == "gpu":
        return common
    cpu = common | {
        "VLLM_CPU_KVCACHE_SPACE": str(math.ceil(engine.kv_cache_gib)),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(engine.threads),
        "CUDA_VISIBLE_DEVICES": "",
    }
    # An eager engine on the CPU would still compile parts of its sampler for half a minute.
    return cpu | {"TORCHDYNAMO_DISABLE": "1"} if engine.enforce_eager else cpu


def check_host(host: str, key: str | None) -> None:
    """Raises ServeRefused for a server that others reach without a key."""
    try:
        loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        raise ServeRefused(f"--host {host} is no IP address") from None
    if not loopback and not key:
        raise ServeRefused(f"--host {host} opens the server to other machines: set {KEY} to a key of your own first")


def main() -> int:
    arguments = _parser().parse_args()
    try:
        chosen = trained(arguments.run, arguments.checkpoint)
        check_host(arguments.host, os.environ.get(KEY))
        line = command(chosen, host=arguments.host, port=arguments.port, more=arguments.more)
        if find_spec("vllm") is None:
            raise ServeRefused("vLLM is not installed: install the cpu or the gpu extra")
        variables = os.environ | environment(chosen)
    except QuorumError as error:
        return tell(error)
    os.execve(line[0], line, variables)


if __name__ == "__main__":
    sys.exit(main())
