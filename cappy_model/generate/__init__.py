"""Generation: decodings, prompts and sampling, with a local language model or an endpoint as the engine."""
