"""cappy_model/train."""
