"""`python -m operate.serve RUN [--host H --port P] [-- VLLM OPTIONS]`: vLLM's OpenAI server on a run's policy.

This process becomes vLLM's: signals and exit code are its own. Guarantees: anything but the loopback address needs a
key (VLLM_API_KEY, or --api-key among vLLM's options), and with one every path but /health asks for it: vLLM itself asks
on some paths alone. On the loopback address only this machine's own names are answered (conf/http_access.py).
"""

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

from conf.errors import QuorumError
from conf.http_access import Access, is_loopback, usable_token
from conf.listening import check_port
from conf.short_folder import new_short_folder, room_in
from conf.terminal import tell
from operate.trained_run import Trained, trained
from rollout.vllm_backend import SOCKET

LOOPBACK = "127.0.0.1"
KEY = "VLLM_API_KEY"
OWN = ("--host", "--port")
"""Options of vLLM that this command sets."""
UNGUARDED = ("--uds", "--grpc", "--grpc-port")
"""Options with which vLLM would listen where nothing asks for the key."""
FILE = "--config"
"""A file of options, none of which could be checked here."""
GUARD, GUARDED = "operate.served.ServedGuard", "QUORUM_SERVED"
"""The class of the check in vLLM's process, and the variable that holds its settings."""


class ServeRefused(QuorumError):
    """The server would be open to others, or vLLM is not installed."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m operate.serve",
        description="Serve a run's policy with vLLM.",
        usage="%(prog)s RUN [--checkpoint WHICH] [--host HOST] [--port PORT] [-- VLLM OPTIONS]",
        epilog="What follows -- is passed to vLLM's server.",
    )
    parser.add_argument("run", type=Path, help="run folder, such as runs/quickstart")
    parser.add_argument("--checkpoint", default="last", help="last (default), best, or a step")
    parser.add_argument("--host", default=LOOPBACK, help=f"address (default: {LOOPBACK}; any other needs {KEY})")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000")
    return parser


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """This command's arguments, and vLLM's, which stand after the first --."""
    words = list(arguments)
    if "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


def check_options(more: Sequence[str]) -> None:
    """Raises ServeRefused for options of vLLM that would undo this command's."""
    for word in more:
        name = _option(word)
        if name == "--":
            raise ServeRefused("a second -- is no option of vLLM's server")
        # vLLM takes an option's beginning for the whole.
        for own in OWN:
            if _is_beginning(name, own):
                raise ServeRefused(f"{word} is this command's own option: write {own} before the --")
        if any(_is_beginning(name, one) for one in UNGUARDED):
            raise ServeRefused(f"{word}: vLLM would listen where nothing asks for a key, so it is not passed on")
        if _is_beginning(name, FILE):
            raise ServeRefused(f"{word}: a file may open the server unseen; write its options themselves after the --")


def keys(more: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """The keys that clients may send: vLLM takes those of --api-key, and without one that of the environment."""
    given: list[str] = []
    listening = False
    for word in more:
        if word.startswith("--"):
            listening = _is_beginning(_option(word), "--api-key")
            given += [word.partition("=")[2]] if listening and "=" in word else []
        elif listening:
            given.append(word)
    if given:
        found = (usable_token("--api-key", {"--api-key": one}) for one in given)
        return tuple(key for key in found if key)
    key = usable_token(KEY, environment)
    return (key,) if key else ()


def _option(word: str) -> str:
    return word.partition("=")[0].replace("_", "-") if word.startswith("--") else ""


def _is_beginning(name: str, option: str) -> bool:
    return len(name) > len("--x") and option.startswith(name)


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
        *("--generation-config", "vllm", "--middleware", GUARD),
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


def access(host: str, port: int, more: Sequence[str], environment: Mapping[str, str]) -> Access:
    """What the server asks of a request. Raises ServeRefused for a server that others reach without a key."""
    tokens = keys(more, environment)
    check_host(host, tokens[0] if tokens else None)
    # Pages of other sites are vLLM's own to admit, where it is told to.
    own_rules = any(_is_beginning(_option(word), "--allowed-origins") for word in more)
    return Access(host=host, port=port, tokens=tokens, open_paths=("/health",), check_origin=not own_rules)


def check_host(host: str, key: str | None) -> None:
    """Raises ServeRefused for a server that others reach without a key."""
    if not is_loopback(host) and not _is_address(host):
        raise ServeRefused(f"--host {host} is no IP address")
    if not is_loopback(host) and not key:
        raise ServeRefused(
            f"--host {host} opens the server to other machines, and no key is set: set {KEY} to a key of your own, or "
            "end the command with -- --api-key KEY"
        )


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def main() -> int:
    own, more = split(sys.argv[1:])
    arguments = _parser().parse_args(own)
    try:
        check_options(more)
        asked = access(arguments.host, arguments.port, more, os.environ)
        chosen = trained(arguments.run, arguments.checkpoint)
        check_port(arguments.host, arguments.port, host_setting="--host", port_setting="--port")
        if find_spec("vllm") is None:
            raise ServeRefused("vLLM is not installed: install the cpu or the gpu extra")
        variables = os.environ | environment(chosen)
    except QuorumError as error:
        return tell(error)
    line = command(chosen, host=arguments.host, port=arguments.port, more=more)
    variables |= {GUARDED: json.dumps(asdict(asked))}
    if KEY in variables:
        variables[KEY] = variables[KEY].strip()
    os.execve(line[0], line, variables)


if __name__ == "__main__":
    sys.exit(main())
