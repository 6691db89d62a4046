"""Speed and steadiness of the reward system, and of the reference's way of doing the same work."""
