"""Errors that a user can cause, printed as they are: the value, the place and the remedy."""


class CappyError(Exception):
    """The job cannot be done as asked: exit status 1."""


class UsageError(CappyError):
    """The command line or the configuration is wrong: exit status 2."""


class HandedOver(Exception):
    """No error: the job was not run but written for others to run. The text says what comes next."""
