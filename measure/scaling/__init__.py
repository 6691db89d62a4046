"""The real pipeline against timed stand-ins for engines, rewards and learner, on a clock that jumps."""
