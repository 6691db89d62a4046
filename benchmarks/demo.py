"""python -m benchmarks.demo: measures a policy, a hosted model or predictions on the demo's held-out questions.

model.path=FOLDER        a policy of the quickstart: runs/quickstart/checkpoints/step-000040/policy
model.api=URL model.name=NAME   a hosted model that speaks the OpenAI protocol
predictions=FILE         one SQL a line, or JSON lines {"index", "candidates": [..]}
output=DIR               receives verdicts.jsonl, scores.json, report.html, candidates.jsonl and official/

Scored as Spider is. The prompt, the completion budget and the engine are those of the quickstart, and data.* makes the
same databases and questions as in training.
"""

import sys

from benchmarks.spider import job
from conf.cli import run_entrypoint
from conf.schema.benchmark import DemoBenchmark

if __name__ == "__main__":
    sys.exit(run_entrypoint(DemoBenchmark, "benchmark_demo", job, __doc__ or "", sys.argv[1:]))
