"""Apache Beam jobs that build, score and rerank instruction-response pairs, and the `cappy` program."""

import logging

DISTRIBUTION = "cappy-at-scale"
"""The name under which pip knows the project."""

# Beam says on the root logger, whenever it is imported, that a Google client which nobody asked for is not there.
logging.getLogger().addFilter(lambda record: "apitools not found" not in record.getMessage())
