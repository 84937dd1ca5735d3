"""Options for Beam; the name under which Python callers know them (see `beam_pipelines.runners.options`)."""

from beam_pipelines.runners.options import beam_options, in_threads

__all__ = ["beam_options", "in_threads"]
