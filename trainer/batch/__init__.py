"""From scored groups to what the learner forwards: advantages, filtering, division over ranks, packing."""
