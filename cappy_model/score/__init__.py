"""The scorer: encode pairs, batch them under a token budget, and run the forward pass."""
