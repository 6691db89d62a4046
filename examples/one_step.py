"""The RL step on one page: GRPO for text-to-SQL in one process, with the product's own parts.

    python -m examples.one_step

A training run divides these four stages over Ray actors: vLLM engines sample, reward actors score, DeepSpeed ranks
learn, and the driver holds what is between them (docs/architecture.md). Here one process does all of it. The vocabulary
is eight queries, so a completion is one token, and the policy must find the query that answers the question.
"""

import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from conf.schema.algo import AlgoConfig
from conf.schema.reward import RewardConfig
from rewards.builder import open_scorer
from rewards.carriers import SqlTask
from rollout.carriers import Completion, Group, Prompt, ScoredGroup
from trainer.batch.batcher import Batcher
from trainer.carriers import TrainingSequence
from trainer.learner.attention import prefix
from trainer.learner.packing.shared_prefix import pack_shared_prefix
from trainer.learner.policy import Policy
from trainer.loss.objective import Objective
from trainer.loss.tokens import LossTokens, LossTotals

QUERIES = (
    "SELECT name FROM dog",
    "SELECT age FROM dog",
    "SELECT count(*) FROM dog",
    "SELECT max(age) FROM dog",
    "SELECT nme FROM dog",
    "DROP TABLE dog",
    "SELECT avg(age) FROM dog",
    "SELECT min(age) FROM dog",
)
"""What the policy can answer: token i is query i. One is right, one names no column, one would change the database."""
GOLD = "SELECT age FROM dog ORDER BY age DESC LIMIT 1"
QUESTION_TOKENS = (10, 11, 12)
GROUP_SIZE = 32


def main(steps: int = 20, seed: int = 0) -> list[float]:
    """Trains for `steps` and returns the share of right answers of each."""
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        task = dog_task(Path(folder))
        prompt = Prompt(task=task, text=task.question, token_ids=QUESTION_TOKENS)
        return list(train(prompt, steps))


def train(prompt: Prompt, steps: int) -> Iterator[float]:
    algo = AlgoConfig()
    reward = RewardConfig.model_validate({"format": {"enabled": False}, "memory": {"enabled": False}})
    batcher = Batcher(algo=algo, component_weights={}, completion_budget=1)
    objective = Objective(algo)
    model = tiny_model()
    policy = Policy(model, temperature=1.0, chunk=64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with open_scorer(reward) as scorer:
        for step in range(steps):
            # 1. Rollout: one group, G completions of one prompt, with their sampling log-probabilities.
            group = sample(model, prompt, step)
            # 2. Reward: each query is executed and its rows are compared with the gold query's.
            results = scorer.score(prompt.task, [completion.text for completion in group.completions])
            scored = ScoredGroup(group=group, results=results)
            # 3. Batch: a group whose rewards are all equal teaches nothing; the others get advantages.
            kept = batcher.filter([scored])
            sequences = batcher.sequences([scored], kept, version=step)
            # 4. Learn: one optimizer update.
            if sequences:
                learn(policy, objective, sequences)
                optimizer.step()
                optimizer.zero_grad()
            accuracy = sum(result.correct for result in results) / GROUP_SIZE
            sys.stdout.write(f"step {step:2d}  right {accuracy:4.0%}  groups trained on {len(kept.kept)}\n")
            yield accuracy


def sample(model: Qwen2ForCausalLM, prompt: Prompt, version: int) -> Group:
    """What vLLM does in a run."""
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        logits = model(torch.tensor([prompt.token_ids])).logits[0, -1, : len(QUERIES)]
    logp = logits.log_softmax(-1)
    drawn = torch.multinomial(logp.exp(), GROUP_SIZE, replacement=True).tolist()
    completions = tuple(
        Completion(
            text=QUERIES[token],
            token_ids=(token,),
            logprobs=(logp[token].item(),),
            version_spans=((0, version),),
            finish_reason="stop",
        )
        for token in drawn
    )
    return Group(id=f"{version}.0", prompt=prompt, completions=completions)


def learn(policy: Policy, objective: Objective, sequences: list[TrainingSequence]) -> None:
    """Adds the gradient of the loss: the prompt is forwarded once for the whole group."""
    policy.language_model.set_attn_implementation(prefix.NAME)
    tokens = float(sum(len(sequence.completion_ids) for sequence in sequences))
    totals = LossTotals(sequences=float(len(sequences)), tokens=tokens, step_tokens=tokens, completion_budget=1)
    for batch in pack_shared_prefix(sequences, budget=512):
        logp, entropy = policy(batch)
        seen = LossTokens(
            logp=logp,
            old_logp=logp.detach(),
            engine_logp=batch.engine_logp,
            advantage=batch.advantage,
            sequence=batch.sequence,
            sequences=len(batch.members),
            entropy=entropy.detach(),
        )
        objective(seen, torch.ones_like(batch.sequence, dtype=torch.bool), totals).loss.backward()


def dog_task(folder: Path) -> SqlTask:
    file = folder / "dogs.sqlite"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE dog (name TEXT, age INT)")
        database.executemany("INSERT INTO dog VALUES (?, ?)", [("ada", 3), ("bo", 5), ("cy", 9)])
    database.close()
    return SqlTask(
        id="oldest", db_id="dogs", question="How old is the oldest dog?", databases=(str(file),), gold_sqls=(GOLD,)
    )


def tiny_model() -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=16,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            attn_implementation=prefix.NAME,
        )
    )


if __name__ == "__main__":
    main()
