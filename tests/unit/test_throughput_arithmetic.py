"""Counting the arithmetic of a step, worked by hand on a tiny shape."""

import pytest

from measure.throughput.arithmetic import (
    GroupLengths,
    attended,
    forward_flops,
    generation_flops,
    group_forward_flops,
    layer_products,
    training_flops,
    utilisation,
)
from rollout.shape import ModelShape

SHAPE = ModelShape(
    hidden=4, intermediate=6, layers=2, heads=2, kv_heads=1, head_dim=2, vocabulary=10, tied=True, biases=True
)


def test_a_layer_multiplies_each_number_of_its_matrices_once():
    # query 4x4, key 4x2, value 4x2, output 4x4, gate, up and down 4x6 each
    assert layer_products(SHAPE) == 16 + 8 + 8 + 16 + 3 * 24 == 120


def test_causal_tokens_see_themselves_and_what_is_before():
    assert attended(3) == 1 + 2 + 3
    assert attended(2, before=3) == 4 + 5
    assert attended(0, before=7) == 0


def test_one_forward_pass():
    # linear 2 x 2 layers x 120 x 3 tokens; attention 2 layers x 2 heads x (2 + 2 operations) x 2 x 6 keys; head 2 x 40
    assert forward_flops(SHAPE, tokens=3, keys=6, logits=1) == 1440 + 192 + 80


def test_a_group_reads_its_prompt_once_and_never_reads_a_last_token():
    # inputs: 3 of the prompt, 1 + 0 + 2 of the completions; keys: 6, then 4, then 4 + 5; logits: 1 + 1 + 0 + 2
    found = group_forward_flops(SHAPE, 3, (2, 1, 3))
    assert found == forward_flops(SHAPE, tokens=6, keys=19, logits=4)
    # a padded way would read the prompt three times
    assert found < forward_flops(SHAPE, tokens=12, keys=31, logits=6)


def test_training_is_three_forward_passes_over_what_differs():
    groups = [
        GroupLengths(prompt=3, completions=(2, 2, 2), distinct=(2,)),
        GroupLengths(prompt=1, completions=(1,), distinct=(1,)),
    ]
    last = forward_flops(SHAPE, tokens=1, keys=1, logits=1)
    assert generation_flops(SHAPE, groups) == forward_flops(SHAPE, tokens=6, keys=18, logits=4) + last
    assert training_flops(SHAPE, groups) == 3 * (forward_flops(SHAPE, tokens=4, keys=10, logits=2) + last)


def test_an_empty_completion_costs_nothing_beyond_its_prompt():
    assert group_forward_flops(SHAPE, 5, (0,)) == group_forward_flops(SHAPE, 5, ())


def test_utilisation_is_six_operations_a_parameter_and_token_over_the_peak():
    # 2 layers x (120 + 8 query, key, value biases + 8 of two norms) + 40 embeddings + 4 final norm
    assert SHAPE.parameters == 2 * (120 + 8 + 8) + 40 + 4 == 316
    assert utilisation(SHAPE, tokens=100.0, seconds=2.0, peak=189600.0) == pytest.approx(0.5)
    assert utilisation(SHAPE, tokens=100.0, seconds=0.0, peak=1.0) == 0.0
