"""Rouge-L of this project against rouge_score (`RougeScorer(["rougeL"], use_stemmer=True)`), in pairs per second.

    python benchmarks/rouge.py
    python benchmarks/rouge.py --parquet solutions.parquet --columns reference response

Both sides get pairs of texts and tokenise both texts of every pair. What this project carries over from pair to pair is
its stem cache, filled beforehand from other texts, as in a worker after its first minutes; rouge_score keeps none. This
project meets each timed pair once; as rouge_score takes much longer, it is timed on every tenth of them. Results are
compared for equality before anything is timed. Time is CPU time of the one thread.
"""

import argparse
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pyarrow.parquet as pq
from rouge_score import rouge_scorer

from cappy_model.metrics.rouge import RougeL

Pairs = list[tuple[str, str]]

SIZES = (20, 200, 400)  # tokens per side
TOKENS = 240_000  # per side and size, so shorter texts come in more pairs
PEER_STRIDE = 10
WARMING_TEXTS = 4_000  # of 200 words; of real texts, at most as many pairs

FUNCTION_WORDS = "the of and to in a is that for it as was with be by on not he his but at are this have from"
SYLLABLES = "ta re mi con sol per van lu dis po ra ment tri gal ber no cher sti quo fla dren bis ju we ko"
SUFFIXES = ("", "", "", "s", "s", "ed", "ing", "ly", "ness", "ation", "ational", "er", "ful", "ities")


class TextMaker:
    """Seeded English-like texts: function words and some 6,000 stems with suffixes, of Zipf frequencies."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.function_words = FUNCTION_WORDS.split()
        syllables = SYLLABLES.split()
        stems = {"".join(self.random.choices(syllables, k=self.random.choice((1, 2, 2, 3)))) for _ in range(8_000)}
        words = [*self.function_words, *self.random.sample(sorted(stems), len(stems))]
        weights = [1 / (rank + 3) for rank in range(len(words))]
        # Drawn once: picking from a large sample of the distribution is quicker than drawing from it.
        self.sample = self.random.choices(words, weights, k=400_000)

    def words(self, count: int) -> list[str]:
        drawn = self.random.choices(self.sample, k=count)
        return [word if word in self.function_words else word + self.random.choice(SUFFIXES) for word in drawn]

    def pair(self, count: int) -> tuple[str, str]:
        """A reference of `count` words, and a response of about as many that keeps some 60% of them in place."""
        reference = self.words(count)
        response: list[str] = []
        for word in reference:
            assignment = self.random.random()
            if assignment < 0.6:
                response.append(word)
            elif assignment < 0.9:
                response.extend(self.words(self.random.choice((0, 1, 2))))
            else:
                response.insert(max(0, len(response) - 3), word)
        return self.punctuate(reference), self.punctuate(response)

    def punctuate(self, words: list[str]) -> str:
        sentences = []
        while words:
            length = self.random.randint(6, 24)
            sentence, words = words[:length], words[length:]
            text = " ".join(word + "," if self.random.random() < 0.06 else word for word in sentence)
            sentences.append(text.capitalize() + ".")
        return " ".join(sentences)


def generated_pairs(seed: int) -> Iterator[tuple[int, Pairs]]:
    maker = TextMaker(seed)
    for size in SIZES:
        yield size, [maker.pair(size) for _ in range(TOKENS // size)]


def parquet_texts(path: Path, columns: list[str]) -> Pairs:
    table = pq.read_table(path, columns=columns)
    rows = zip(*(table[column].to_pylist() for column in columns), strict=True)
    return [(reference, response) for reference, response in rows if reference and response]


def cut_pairs(texts: Pairs) -> Iterator[tuple[int, Pairs]]:
    """For each size, the pairs whose two texts are that long or nearly, both cut to that many words."""
    split = [(reference.split(" "), response.split(" ")) for reference, response in texts]
    for size in SIZES:
        long = [(a[:size], b[:size]) for a, b in split if min(len(a), len(b)) >= 0.8 * size][: TOKENS // size]
        yield size, [(" ".join(a), " ".join(b)) for a, b in long]


def seconds(score: Callable[[str, str], float], pairs: Pairs) -> float:
    """CPU seconds per pair."""
    start = time.process_time()
    for reference, response in pairs:
        score(reference, response)
    return (time.process_time() - start) / len(pairs)


def peer_score(scorer: rouge_scorer.RougeScorer, reference: str, response: str) -> float:
    return float(scorer.score(reference, response)["rougeL"].fmeasure)


def our_score(scorer: RougeL, reference: str, response: str) -> float:
    return scorer.score([reference], response)


def measure(pairs: Pairs, warming: list[str], repetitions: int) -> str:
    """One row of the table, after a check that both sides agree on all the pairs that rouge_score is timed on."""
    slices = [pairs[i::repetitions] for i in range(repetitions)]
    peer = partial(peer_score, rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True))
    checker = RougeL()  # not the timed one, whose cache must not have met these texts
    compared = [(our_score(checker, *pair), peer(*pair)) for part in slices for pair in part[::PEER_STRIDE]]
    different = sum(a != b for a, b in compared)
    if different:
        raise SystemExit(f"the two sides differ on {different} of {len(compared)} pairs")
    timed = RougeL()
    for text in warming:
        timed.tokens(text)
    times = [(seconds(peer, part[::PEER_STRIDE]), seconds(partial(our_score, timed), part)) for part in slices]
    peer_rate = 1 / statistics.median(peer_time for peer_time, _ in times)
    our_rate = 1 / statistics.median(our_time for _, our_time in times)
    ratios = sorted(peer_time / our_time for peer_time, our_time in times)
    tokens = statistics.mean(len(checker.tokens(text)) for pair in pairs for text in pair)
    score = statistics.mean(score for score, _ in compared)
    return (
        f"| {tokens:.0f} | {score:.2f} | {len(compared):,} of {len(pairs):,} | {peer_rate:,.0f} | {our_rate:,.0f} "
        f"| x{statistics.median(ratios):.0f} | x{ratios[0]:.0f} to x{ratios[-1]:.0f} |"
    )


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Rouge-L of this project against rouge_score, on one core.")
    parser.add_argument("--parquet", type=Path, help="take real pairs from this file; without it they are generated")
    parser.add_argument("--columns", nargs=2, metavar=("A", "B"), help="its columns of references and responses")
    parser.add_argument("--repetitions", type=int, default=5, help="how often each row is timed (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated texts")
    arguments = parser.parse_args()
    if (arguments.parquet is None) != (arguments.columns is None):
        parser.error("--parquet and --columns go together")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    groups: Iterator[tuple[int, Pairs]]
    if arguments.parquet is None:
        source, groups = f"generated, seed {arguments.seed}", generated_pairs(arguments.seed)
        other = TextMaker(arguments.seed)  # the same vocabulary
        other.random.seed(arguments.seed + 1)  # in other texts
        warming = [other.punctuate(other.words(200)) for _ in range(WARMING_TEXTS)]
    else:
        source = f"{arguments.parquet.name}, {' and '.join(arguments.columns)}"
        texts = parquet_texts(arguments.parquet, arguments.columns)
        half = len(texts) // 2  # to be timed; the other half warms
        groups = cut_pairs(texts[:half])
        warming = [text for pair in texts[half:][:WARMING_TEXTS] for text in pair]
    libraries = ", ".join(f"{name} {version(name)}" for name in ("rouge_score", "nltk", "rapidfuzz"))
    print(f"Rouge-L, one core of {os.cpu_count()} x {cpu_model()}; Python {platform.python_version()}, {libraries}.")
    print(f"Peer: rouge_score, use_stemmer=True. Texts: {source}. Medians of {arguments.repetitions} repetitions;")
    print("both texts of each pair tokenised every time, this project's stem cache warmed with other texts.\n")
    print("| tokens per side | mean score | pairs timed | rouge_score, pairs/s | cappy, pairs/s | ratio | range |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for size, pairs in groups:
        if len(pairs) < PEER_STRIDE * arguments.repetitions:
            print(f"{size} tokens: too few pairs are that long ({len(pairs)}), so no row", file=sys.stderr)
        else:
            print(measure(pairs, warming, arguments.repetitions), flush=True)


if __name__ == "__main__":
    main()
