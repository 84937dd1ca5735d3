"""cappy_model/metrics."""
