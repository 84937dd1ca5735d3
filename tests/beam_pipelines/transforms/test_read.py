from pathlib import Path

import apache_beam as beam
import pytest

from beam_pipelines.io.output import OutputDir
from beam_pipelines.runners.options import beam_options
from beam_pipelines.runs.release import Release
from beam_pipelines.transforms import read
from schemas.manifest import RUN


def read_nothing(folder: Path) -> None:
    options = beam_options(["--direct_num_workers=1"], local_mode="multi_processing")
    with beam.Pipeline(options=options) as root:
        root | beam.Create([]) | read.ReadInputs([], OutputDir(str(folder)))


def test_reading_refuses_a_worker_of_other_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / RUN).write_text("{}")
    read_nothing(tmp_path)
    monkeypatch.setattr(read, "this_release", lambda: Release("9.9.9", "f" * 12))
    with pytest.raises(Exception, match=r"submitted by cappy 9\.9\.9 \(code ffffffffffff\)"):
        read_nothing(tmp_path)


def test_reading_refuses_a_worker_that_sees_another_folder(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"lacks the run\.json that the command wrote there\. Give a folder"):
        read_nothing(tmp_path)
