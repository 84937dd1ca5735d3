"""`cappy doctor`: checks of this machine and of a runner, each with a remedy.

Every check returns findings and none raises: anything missing or broken is a finding. The checks of this machine use no
network and import Beam and other packages that may be broken only to test them, so `python -m beam_pipelines.doctor`
works where `cappy` cannot start. `cluster` sends a probe to a worker of a runner: it needs Beam.
"""
