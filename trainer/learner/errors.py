"""What can go wrong in the learner; every message is one sentence for the user."""

from conf.errors import QuorumError


class LearnerError(QuorumError):
    """The learner cannot do what was asked."""


class PolicyNotLoadable(LearnerError):
    """The folder does not hold a causal language model that can be trained here."""


class LearnerNotStarted(LearnerError):
    """A rank's process cannot be started here: another try would end the same way."""


class LearnerLost(LearnerError):
    """A rank's process ended."""


class LearnerStalled(LearnerError):
    """A rank did not answer within its time limit."""


class WrongWeights(LearnerError):
    """The completions were sampled by another policy than the learner's; nothing was trained."""
