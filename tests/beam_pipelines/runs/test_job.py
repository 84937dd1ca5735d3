"""The registry of jobs agrees with the jobs."""

import pytest

from beam_pipelines.runners.pipeline_job import PipelineJob
from beam_pipelines.runs.job import JOBS, load_config, load_job


@pytest.mark.parametrize("name", JOBS)
def test_a_job_has_the_name_of_its_entry_and_a_pipeline_where_it_names_workers(name: str) -> None:
    job = load_job(name)
    assert job.name == name
    assert isinstance(job, PipelineJob) == (JOBS[name].workers is not None)
    assert (job.page is not None) == (isinstance(job, PipelineJob) or name == "train")
    assert load_config(name).__name__.endswith("Config")
