"""The words of adapt for messages of its stages, which name the flags of their own jobs."""

import re
from collections.abc import Mapping

from beam_pipelines.jobs.adapt.config import AdaptConfig
from beam_pipelines.runs.wording import literal

WORDS = {
    r"; --score-column names another one": "; rename it in the files of --validation",
    r"--group-column names what tells groups apart": "give each instruction an instruction_id of its own",
    r"`(cappy doctor --model [^`]*)` says more; --check-pairs 0 runs without this check": r"`\1` says more",
    r"--tokens-per-batch must be given for a remote runner: this machine cannot settle it": (
        "adapt trains and scores on one machine: leave --runner out, or give `cappy train`, `cappy score --runner ...` "
        "and so on one after the other"
    ),
    r"--[a-z]+-column (\S+): there is no such column": r"there is no column '\1'",
    r"--[a-z]+-column: ": "",
    r"--(instruction|response|score|reference|group)-column\b": r"the column of the \1",
    r"--epochs, --max-steps": "--max-steps",
    r"give another corpus": "give other candidates as --train",
    r"--corpus ": "the pairs made of --train, ",
}


def words_of(config: AdaptConfig) -> Mapping[str, str]:
    """Return the patterns of messages that adapt says in other words (see `runs.wording`), for its options."""
    held_out = f"--held-out {config.validation}"
    return {re.escape(held_out): literal(f"--validation {config.validation}"), **WORDS}
