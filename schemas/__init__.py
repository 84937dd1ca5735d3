"""The contract between all parts of the project: record schemas, identifiers, chunks, statistics and manifests.

Depends on pyarrow, numpy and the standard library only.
"""
