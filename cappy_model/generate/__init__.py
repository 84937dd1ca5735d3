"""cappy_model/generate."""
