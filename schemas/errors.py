"""Errors that a user can cause. Messages are printed as they are: the value, the place and the remedy."""


class CappyError(Exception):
    """The job cannot be done as asked: exit status 1."""


class UsageError(CappyError):
    """The command line or the configuration is wrong: exit status 2."""


class HandedOver(Exception):
    """Not an error: the job was written out to be run elsewhere. The text says the next step."""
