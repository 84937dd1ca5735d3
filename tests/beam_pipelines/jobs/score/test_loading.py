"""Scorers of a process: loaded once, whatever threads ask for them, and released."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from beam_pipelines.jobs.score.reuse import release_scorers
from beam_pipelines.jobs.score.scoring import ScorerSpec, load_scorer
from cappy_model.score.scorer import Scorer

THREADS = 4
SPEC = ScorerSpec("mine", "cpu", "float32", 512, False, False, "{}", None, "none", 64)


def test_threads_load_a_scorer_once_until_it_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    together = threading.Barrier(THREADS)

    def from_pretrained(model: str, **settings: object) -> object:
        loaded.append(model)
        time.sleep(0.05)  # another thread would begin to load meanwhile
        return object()

    def load(_: int) -> object:
        together.wait(timeout=10)
        return load_scorer(SPEC)

    monkeypatch.setattr(Scorer, "from_pretrained", from_pretrained)
    release_scorers()
    with ThreadPoolExecutor(THREADS) as threads:
        assert len(set(threads.map(load, range(THREADS)))) == 1
    load_scorer(replace(SPEC, model="other"))
    assert loaded == ["mine", "other"]
    release_scorers()
    load_scorer(SPEC)
    assert loaded == ["mine", "other", "mine"]
    release_scorers()
