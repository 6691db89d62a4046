"""From the task stream to the learner and back: admission, generation, scoring, consumption, weight updates."""
