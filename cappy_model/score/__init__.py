"""cappy_model/score."""
