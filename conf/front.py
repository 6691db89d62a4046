"""The console command `quorum`: a thin front that runs the module behind each verb.

It imports nothing of the other packages, so `quorum --help` answers at once and no import direction is broken.
"""

import runpy
import sys

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
    arguments = sys.argv[1:]
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


if __name__ == "__main__":
    main()
