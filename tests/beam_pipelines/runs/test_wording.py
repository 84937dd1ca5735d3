import logging

import pytest

from beam_pipelines.runs.wording import reworded
from schemas.errors import UsageError

WORDS = {r"--theirs": "--ours"}
LOG = logging.getLogger("cappy")


def test_errors_and_log_messages_of_the_block_are_reworded(caplog: pytest.LogCaptureFixture) -> None:
    def stage() -> None:
        with reworded(WORDS):
            LOG.warning("%s: raise %s", "out", "--theirs")
            raise UsageError("--theirs is wrong")

    with pytest.raises(UsageError, match="^--ours is wrong$"):
        stage()
    LOG.warning("--theirs")
    assert caplog.messages == ["out: raise --ours", "--theirs"]
