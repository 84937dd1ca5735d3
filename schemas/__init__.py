"""What every part of the project agrees on: record schemas, identifiers, chunks, all_stats and the manifest of a run.

Depends on pyarrow, numpy and the standard library only.
"""
