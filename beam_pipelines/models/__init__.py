"""Jobs with a model: their options, the model spec for workers, and inference over units."""
