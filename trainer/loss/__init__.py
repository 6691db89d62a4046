"""The policy-gradient objective: one file a variant, pure torch, no configuration tree and no Ray."""
