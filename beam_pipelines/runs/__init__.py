"""Runs and what all jobs share: the registry, configurations and flags, the output folder, progress and reports."""
