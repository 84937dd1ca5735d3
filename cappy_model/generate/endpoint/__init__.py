"""cappy_model/generate/endpoint."""
