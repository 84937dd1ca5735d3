"""Training of a scorer: the corpus and its split, the stream of batches, the Trainer and its checkpoints."""
