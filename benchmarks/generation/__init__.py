"""Answers made now, by a policy or by a hosted model. Progress is kept, so an interrupted run can go on."""
