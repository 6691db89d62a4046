"""Voters: the published rule, its corrected defects, ties, and independence of the candidates' order."""

import random

import numpy as np
import pytest

from rollout.carriers import Completion
from rollout.errors import LogprobsDamaged
from selection.candidate import Candidate, Context, NoCandidates
from selection.features import features
from selection.soft_vote import bags, similarity
from selection.value_aware_conditioned import may_be_nothing
from selection.voters import VOTERS


def make(spec: str, logprobs: list[float] | None = None) -> list[Candidate]:
    """One letter a candidate: its result; 'x' failed, '0' a trivial result. The SQL is the letter and its position."""
    return [
        Candidate(
            index=i,
            sql=f"SELECT {letter}{i}",
            digest=None if letter == "x" else letter,
            trivial=letter == "0",
            failed=letter == "x",
            logprob=logprobs[i] if logprobs else None,
        )
        for i, letter in enumerate(spec)
    ]


def chosen(name: str, candidates: list[Candidate], context: Context | None = None) -> str:
    """The letter of the chosen candidate."""
    index = VOTERS[name](candidates, context or Context())
    return next(c.sql for c in candidates if c.index == index)[7]


def test_value_aware_prefers_the_largest_telling_group() -> None:
    assert chosen("value_aware", make("000ab" + "a" + "x" * 9)) == "a"
    assert chosen("majority", make("000aab")) == "0"


def test_value_aware_falls_back_to_trivial_results_and_then_to_anything() -> None:
    assert chosen("value_aware", make("xx0x0")) == "0"
    assert VOTERS["value_aware"](make("xxx", [-3.0, -1.0, -2.0])) == 1


def test_one_junk_value_beats_zeros_only_where_the_question_gives_no_reason_for_zero() -> None:
    votes = make("0" * 29 + "a")
    assert chosen("value_aware", votes) == "a"
    assert chosen("value_aware_conditioned", votes, Context(question="How many singers are there?")) == "0"
    assert chosen("value_aware_conditioned", make("000aa"), Context(question="List the names of all singers.")) == "a"
    assert chosen("value_aware_conditioned", votes, Context(question="List the names of all singers.")) == "a"
    assert chosen("value_aware_conditioned", make("000aa"), Context(question="How many singers are there?")) == "a"


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("How many dogs went through no treatments?", True),
        ("Which countries do not have any car maker?", True),
        ("Names of teachers who don't teach math", True),
        ("What is the number of likes of Kyle?", True),
        ("List the name and notes of all singers", False),
        ("Show the north-most city", False),
    ],
)
def test_questions_that_admit_nothing(question: str, expected: bool) -> None:
    assert may_be_nothing(question) is expected


def test_ties_go_to_the_likelier_group_and_within_it_to_the_likelier_candidate() -> None:
    assert VOTERS["value_aware"](make("aabb", [-4.0, -3.0, -2.0, -9.0])) == 2
    assert VOTERS["majority"](make("aab", [-4.0, -3.0, -2.0])) == 1


@pytest.mark.parametrize("name", sorted(set(VOTERS) - {"first", "greedy"}))
@pytest.mark.parametrize("spec", ["aabbcc", "xx00", "xxxx", "0aab0b", "ab"])
def test_the_order_of_candidates_does_not_matter(name: str, spec: str) -> None:
    candidates = make(spec)
    context = Context(rows={c.index: [(c.digest,)] for c in candidates if c.digest}, correct=frozenset({1}))
    expected = VOTERS[name](candidates, context)
    for seed in range(10):
        shuffled = random.Random(seed).sample(candidates, len(candidates))
        assert VOTERS[name](shuffled, context) == expected


def test_reindexed_candidates_give_the_same_query() -> None:
    texts = ["SELECT 1", "SELECT 22", "SELECT 2"]
    digests = ["1", "2", "2x"]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        shuffled = [Candidate(index=i, sql=texts[j], digest=digests[j]) for i, j in enumerate(order)]
        assert shuffled[VOTERS["value_aware"](shuffled)].sql == "SELECT 1"


def test_first_greedy_and_oracle() -> None:
    candidates = make("xab")
    assert VOTERS["first"](candidates) == 0
    assert VOTERS["greedy"](candidates, Context(greedy=2)) == 2
    assert VOTERS["oracle"](candidates, Context(correct=frozenset({2}))) == 2
    assert VOTERS["oracle"](make("aab"), Context(correct=frozenset())) == 0
    with pytest.raises(NoCandidates, match="greedily"):
        VOTERS["greedy"](candidates)
    with pytest.raises(NoCandidates, match="oracle"):
        VOTERS["oracle"](candidates)


def test_log_probability_skips_what_did_not_run() -> None:
    assert VOTERS["log_probability"](make("xab", [-0.1, -5.0, -2.0])) == 2


def test_confidence_outweighs_a_larger_but_unlikely_group() -> None:
    assert chosen("confidence_weighted", make("aaabb", [-40.0, -40.0, -40.0, -1.0, -1.0])) == "b"
    assert chosen("confidence_weighted", make("aaabb")) == "a"


def test_soft_vote_counts_near_misses() -> None:
    candidates = make("aabcde")
    near = [("ann", i) for i in range(9)]
    rows = {0: [("z",)], 1: [("z",)], 2: [*near, ("x", 1)], 3: [*near, ("y", 2)], 4: [*near, ("w", 3)], 5: near}
    assert chosen("value_aware", candidates) == "a"
    assert chosen("soft_vote", candidates, Context(rows=rows)) in "bcde"
    with pytest.raises(NoCandidates, match="result rows"):
        VOTERS["soft_vote"](candidates)


def test_similarity_of_results() -> None:
    left = bags([(1, "a"), (2, "b")])
    assert similarity(left, left) == 1.0
    assert similarity(left, bags([(1, "a"), (3, "c")])) == 0.5
    assert similarity(left, bags([(9, "z")])) == 0.0
    assert similarity(left, bags([(1,), (2,)])) == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", sorted(set(VOTERS) - {"greedy", "oracle"}))
def test_no_candidates_is_an_error_not_an_answer(name: str) -> None:
    with pytest.raises(NoCandidates):
        VOTERS[name]([])


@pytest.mark.parametrize("logprob", [float("nan"), float("inf"), float("-inf"), -1e300, 5.0])
def test_no_candidate_has_a_log_probability_that_cannot_be_compared(logprob: float) -> None:
    with pytest.raises(ValueError, match="is no log-probability"):
        Candidate(index=0, sql="SELECT 1", digest="a", logprob=logprob)


def test_extreme_log_probabilities_keep_every_vote_in_order() -> None:
    """The least and the greatest that a candidate may have: no voter overflows or depends on the order."""
    votes = make("aabbcx", [-1e9, -1e9, 0.01, -1e9, 0.0, -3.0])
    for name in ("log_probability", "confidence_weighted", "value_aware", "majority"):
        assert chosen(name, votes) == chosen(name, votes[::-1])
    table = features(votes, Context())
    assert np.isfinite(table).all()
    assert np.allclose(features(votes[::-1], Context()), table[::-1])


def test_an_engines_log_probability_that_is_no_number_is_an_error() -> None:
    def completion(*logprobs: float) -> Completion:
        spans = ((0, 0),)
        return Completion(
            text="SELECT 1", token_ids=(1, 2), logprobs=logprobs, version_spans=spans, finish_reason="stop"
        )

    assert completion(-1.5, -0.5).logprob == -2.0
    assert completion().logprob is None
    for bad in (float("nan"), float("-inf")):
        with pytest.raises(LogprobsDamaged, match=f"the log-probability {bad}: the policy's weights are damaged"):
            _ = completion(-1.0, bad).logprob
