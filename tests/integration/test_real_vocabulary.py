"""Log-probabilities at the vocabulary and batch of a real policy stay within bounded memory, forward and backward."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

VOCABULARY, TOKENS, CHUNK = 151_936, 16_384, 256

PROGRAM = """
import json, resource, sys
import torch
from trainer.learner.logprobs import token_logprobs

vocabulary, tokens, chunk = map(int, sys.argv[1:])
torch.manual_seed(0)
hidden = torch.randn(tokens, 8, requires_grad=True)
weight = torch.randn(vocabulary, 8, requires_grad=True)
targets = torch.randint(0, vocabulary, (tokens,))
began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
logp, entropy = token_logprobs(hidden, weight, targets, temperature=1.0, chunk=chunk)
(logp.sum() + 0.1 * entropy.sum()).backward()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

few = hidden.detach()[-4:].double().requires_grad_()
log_p = torch.log_softmax(few @ weight.detach().double().T, dim=-1)
chosen = log_p.gather(1, targets[-4:, None]).squeeze(1)
uncertain = -(log_p.exp() * log_p).sum(-1)
(chosen.sum() + 0.1 * uncertain.sum()).backward()
errors = [(a - b).abs().max().item() for a, b in ((logp[-4:], chosen), (entropy[-4:], uncertain))]
errors.append(((hidden.grad[-4:] - few.grad).norm() / few.grad.norm()).item())
print(json.dumps({"gib": (peak - began) / 2**20, "errors": errors, "finite": bool(weight.grad.isfinite().all())}))
"""


def test_a_real_vocabulary_needs_the_memory_of_a_chunk():
    command = [sys.executable, "-c", PROGRAM, *map(str, (VOCABULARY, TOKENS, CHUNK))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    # The logits of all tokens alone would be 9.3 GiB; a chunk's are 0.15 GiB, and a few of them live at once.
    assert found["gib"] < 1.5
    assert found["finite"]
    assert max(found["errors"]) < 1e-4
