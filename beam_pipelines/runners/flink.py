"""The jobs of a Flink cluster, over the REST of its JobManager."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.request import Request, urlopen

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions

from schemas.errors import CappyError

_SECONDS = 10


class NoAnswer(CappyError):
    """An address that does not answer as a JobManager does."""


@dataclass(frozen=True)
class FlinkJobs:
    """The jobs of the cluster at `url`. All methods raise NoAnswer."""

    url: str

    def running(self, name: str) -> list[str]:
        """Return the ids of the jobs of this name that have not ended."""
        with self._answering():
            return [job["jid"] for job in self._named(name) if job["end-time"] < 0]

    def cancel(self, name: str) -> None:
        """Cancel the jobs of this name."""
        for job in self.running(name):
            with self._answering():
                self._ask(f"jobs/{job}?mode=cancel", method="PATCH")

    def failures(self, name: str) -> list[str]:
        """Return the stack traces that Flink recorded for the most recently started job of this name."""
        with self._answering():
            latest = [job["jid"] for job in sorted(self._named(name), key=lambda job: job["start-time"])][-1:]
            histories = [self._ask(f"jobs/{job}/exceptions")["exceptionHistory"]["entries"] for job in latest]
            return [entry["stacktrace"] for entries in histories for entry in entries]

    def _named(self, name: str) -> list[Any]:
        return [job for job in self._ask("jobs/overview")["jobs"] if job["name"] == name]

    def _ask(self, path: str, *, method: str = "GET") -> Any:
        with urlopen(Request(f"{self.url}/{path}", method=method), timeout=_SECONDS) as answer:
            return json.load(answer)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Raise NoAnswer for a response that is not HTTP, not JSON, or not a JobManager's."""
        try:
            yield
        except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
            raise NoAnswer(
                f"--flink_master {self.url}: does not answer as the REST port of a Flink JobManager does "
                f"({type(error).__name__}: {error}); fix the address"
            ) from error


def jobs_on_flink(options: PipelineOptions) -> FlinkJobs | None:
    """Return the jobs of the cluster of --flink_master; None if no cluster is named."""
    master = options.view_as(FlinkRunnerOptions).flink_master
    if master.startswith("["):
        return None
    return FlinkJobs(master if "://" in master else f"http://{master}")
