"""Metrics without torch: Rouge-L, rank measures, and means with bootstrap intervals."""
