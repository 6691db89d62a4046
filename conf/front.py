"""The console command `quorum`: a thin front that runs the module behind each verb.

It imports nothing of the other packages, so `quorum --help` answers at once and no import direction is broken. A verb
whose output nobody reads any more (`quorum jobs logs RUN | head`) ends quietly, as Unix tools do.
"""

import os
import runpy
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

VERBS = {
    ("train",): ("trainer", "train a policy with GRPO"),
    ("warmup",): ("trainer.warmup", "supervised warm-up alone"),
    ("watch",): ("operate.watch", "watch a run, in the terminal or as a local page"),
    ("report",): ("records.report", "write a run's report.html again"),
    ("replay",): ("operate.replay", "find what made a kept batch's gradient infinite"),
    ("plan",): ("trainer.plan", "what a run will need and cost"),
    ("submit",): ("operate.jobs.command", "run a training or a benchmark as a Ray job"),
    ("jobs",): ("operate.jobs", "list, follow, stop and resume jobs"),
    ("runs",): ("records.index", "list, show, compare and tidy runs"),
    ("export",): ("operate.export", "a trained policy as a Hugging Face folder with a model card"),
    ("serve",): ("operate.serve", "vLLM's OpenAI server on a trained policy"),
    ("ask",): ("operate.ask", "ask a trained policy one question about a database"),
    ("score",): ("rewards.score", "score completions from a file"),
    ("reward-server",): ("rewards.server", "serve rewards over HTTP"),
    ("instances",): ("curation.instances", "make more instances of a database"),
    ("bench", "spider"): ("benchmarks.spider", "measure a policy or predictions on Spider"),
    ("bench", "bird"): ("benchmarks.bird", "measure a policy or predictions on BIRD"),
    ("bench", "demo"): ("benchmarks.demo", "measure a policy on the demo's held-out questions"),
    ("bench", "rewards"): ("measure.rewards", "measure the reward system"),
    ("bench", "ablation"): ("measure.ablation", "measure what each reward component is worth"),
    ("bench", "throughput"): ("measure.throughput", "measure training steps, also beside TRL"),
    ("bench", "scaling"): ("measure.scaling", "simulate the pipeline on more devices"),
    ("chaos",): ("measure.chaos", "break small training runs and count what they lose"),
    ("compare",): ("benchmarks.compare", "compare benchmark runs"),
    ("study",): ("benchmarks.study", "compare voters on candidates"),
    ("reranker",): ("benchmarks.study.train_reranker", "train the reranker on candidates"),
}


def main() -> None:
    """Runs `quorum VERB [SETTINGS]`; an unknown verb exits with code 2."""
    with _quiet_without_reader():
        _run(sys.argv[1:])


def _run(arguments: list[str]) -> None:
    for verb, (module, _) in VERBS.items():
        if tuple(arguments[: len(verb)]) == verb:
            sys.argv = [f"quorum {' '.join(verb)}", *arguments[len(verb) :]]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            return
    out = sys.stdout if not arguments or arguments[0] in ("-h", "--help") else sys.stderr
    out.write("quorum VERB [SETTINGS]; each verb takes --help\n\n")
    out.writelines(f"  {' '.join(verb):<16} {about}  (python -m {module})\n" for verb, (module, about) in VERBS.items())
    if out is sys.stderr:
        sys.exit(2)


@contextmanager
def _quiet_without_reader() -> Iterator[None]:
    """Exits as a program that SIGPIPE ends when the reader of the output has left. The signal itself stays ignored: a
    broken socket must not end the process. Other broken pipes are the verb's own errors."""
    try:
        try:
            yield
        finally:
            # What is still buffered is written here, not while the interpreter shuts down.
            if sys.stdout:
                sys.stdout.flush()
    except BrokenPipeError:
        left = [stream for stream in (sys.stdout, sys.stderr) if _is_broken(stream)]
        if not left:
            raise
        for stream in left:
            # The rest has no reader, and the interpreter's own flush at the end would tell of it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(128 + signal.SIGPIPE)


def _is_broken(stream: TextIO) -> bool:
    """Whether nobody reads the stream any more; what was written to it does not tell, for a failed write is dropped."""
    watched = select.poll()
    watched.register(stream.fileno(), select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll(0))


if __name__ == "__main__":
    main()
