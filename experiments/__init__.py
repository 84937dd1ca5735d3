"""Experiments on the claims of the paper: each runs commands of the project and prints tables."""
