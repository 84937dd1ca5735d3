"""`cappy doctor`: what of this machine the jobs can use, and what to install or do about the rest.

Every check is a function from nothing to findings. None reaches the network, and none raises: what is missing or broken
is a finding. Nothing here imports Beam or what else may be broken, so `python -m beam_pipelines.doctor` works where
`cappy` cannot start.
"""
