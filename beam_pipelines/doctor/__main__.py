"""`python -m beam_pipelines.doctor`."""

import sys

from beam_pipelines.doctor.diagnosis import doctor

sys.exit(doctor())
