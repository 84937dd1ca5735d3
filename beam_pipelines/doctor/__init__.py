"""`cappy doctor`: what of this machine the jobs can use, and what to install or do about the rest.

Every check is a function to findings, and none raises: what is missing or broken is a finding. Those of this machine
reach no network and import neither Beam nor what else may be broken, so `python -m beam_pipelines.doctor` works where
`cappy` cannot start. `cluster` sends a probe to a worker of a runner: it needs Beam, and `cappy doctor` alone uses it.
"""
