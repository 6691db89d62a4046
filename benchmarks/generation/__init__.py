"""Answers made now: by a policy through the rollout code, or by a hosted model. Progress is kept, so a run can go on.
"""
