"""How does the policy learn? The GRPO pipeline, its learner, and the run's records."""
