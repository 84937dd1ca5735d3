"""Rouge-L of this project against rouge_score (`RougeScorer(["rougeL"], use_stemmer=True)`), in pairs per second.

    python -m benchmarks.rouge
    python -m benchmarks.rouge --parquet solutions.parquet --columns reference response

Both sides tokenise both texts of every pair. This project keeps a stem cache between pairs, which is filled beforehand
from other texts, as in a worker after its first minutes; rouge_score keeps none. This project scores each timed pair
once; rouge_score is much slower and timed on every tenth of them. Results are compared for equality before anything is
timed. Time is CPU time of one thread.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
from rouge_score import rouge_scorer

from benchmarks.machine import describe, make_parser, markdown_table
from cappy_model.metrics.rouge import RougeL

TextPair = tuple[str, str]

SIZES = (20, 200, 400)  # tokens per side
TOKENS = 240_000  # per side and size, so shorter texts come in more pairs
PEER_STRIDE = 10
WARM_UP_TEXTS = 4_000  # of 200 words; of real texts, at most as many pairs

FUNCTION_WORDS = "the of and to in a is that for it as was with be by on not he his but at are this have from"
SYLLABLES = "ta re mi con sol per van lu dis po ra ment tri gal ber no cher sti quo fla dren bis ju we ko"
SUFFIXES = ("", "", "", "s", "s", "ed", "ing", "ly", "ness", "ation", "ational", "er", "ful", "ities")


class TextMaker:
    """Seeded generator of English-like texts: function words and some 6,000 stems with suffixes, Zipf-distributed."""

    def __init__(self, seed: int):
        self.random, self.function_words = random.Random(seed), FUNCTION_WORDS.split()
        stems = {
            "".join(self.random.choices(SYLLABLES.split(), k=self.random.choice((1, 2, 2, 3)))) for _ in range(8_000)
        }
        words = [*self.function_words, *self.random.sample(sorted(stems), len(stems))]
        weights = [1 / (rank + 3) for rank in range(len(words))]
        # Drawn once: choosing from a large sample of the distribution is faster than drawing from it.
        self.sample = self.random.choices(words, weights, k=400_000)

    def words(self, count: int) -> list[str]:
        drawn = self.random.choices(self.sample, k=count)
        return [word if word in self.function_words else word + self.random.choice(SUFFIXES) for word in drawn]

    def pair(self, count: int) -> TextPair:
        """Return a reference of `count` words, and a response of similar length that keeps about 60% of them."""
        reference = self.words(count)
        response: list[str] = []
        for word in reference:
            draw = self.random.random()
            if draw < 0.6:
                response.append(word)
            elif draw < 0.9:
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


def parquet_texts(path: Path, columns: Sequence[str]) -> list[TextPair]:
    """Return the pairs of non-empty texts of two columns."""
    table = pq.read_table(path, columns=list(columns))
    rows = zip(*(table[column].to_pylist() for column in columns), strict=True)
    return [(reference, response) for reference, response in rows if reference and response]


def cut_pairs(texts: Sequence[TextPair]) -> Iterator[tuple[int, list[TextPair]]]:
    """Yield for each size the pairs of two texts of at least 0.8 of that size, cut to that number of words."""
    split = [(reference.split(" "), response.split(" ")) for reference, response in texts]
    for size in SIZES:
        long = [(a[:size], b[:size]) for a, b in split if min(len(a), len(b)) >= 0.8 * size][: TOKENS // size]
        yield size, [(" ".join(a), " ".join(b)) for a, b in long]


def cpu_seconds(score: Callable[[str, str], float], pairs: Sequence[TextPair]) -> float:
    """Return CPU seconds per pair."""
    start = time.process_time()
    for reference, response in pairs:
        score(reference, response)
    return (time.process_time() - start) / len(pairs)


def peer_score(scorer: rouge_scorer.RougeScorer, reference: str, response: str) -> float:
    return float(scorer.score(reference, response)["rougeL"].fmeasure)


def our_score(scorer: RougeL, reference: str, response: str) -> float:
    return scorer.score([reference], response)


def measure(pairs: Sequence[TextPair], warm_up: Sequence[str], repetitions: int) -> dict[str, str]:
    """Return one row of the table. Raises SystemExit if the scores of a pair that the peer is timed on differ."""
    parts = [pairs[i::repetitions] for i in range(repetitions)]
    peer = partial(peer_score, rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True))
    checker, ours = RougeL(), RougeL()  # the cache of the timed one must not contain these texts
    compared = [(our_score(checker, *pair), peer(*pair)) for part in parts for pair in part[::PEER_STRIDE]]
    different = sum(a != b for a, b in compared)
    if different:
        raise SystemExit(f"the two sides differ on {different} of {len(compared)} pairs")
    for text in warm_up:
        ours.tokens(text)
    times = [(cpu_seconds(peer, part[::PEER_STRIDE]), cpu_seconds(partial(our_score, ours), part)) for part in parts]
    peer_time, our_time = map(statistics.median, zip(*times, strict=True))
    ratios = sorted(theirs / mine for theirs, mine in times)
    return {
        "tokens per side": f"{statistics.mean(len(checker.tokens(text)) for pair in pairs for text in pair):.0f}",
        "mean score": f"{statistics.mean(score for score, _ in compared):.2f}",
        "pairs timed": f"{len(compared):,} of {len(pairs):,}",
        "rouge_score, pairs/s": f"{1 / peer_time:,.0f}",
        "cappy, pairs/s": f"{1 / our_time:,.0f}",
        "ratio": f"x{statistics.median(ratios):.0f}",
        "range": f"x{ratios[0]:.0f} to x{ratios[-1]:.0f}",
    }


def inputs(arguments: argparse.Namespace) -> tuple[str, Iterator[tuple[int, list[TextPair]]], list[str]]:
    """Return a description, the pairs by size, and the texts of the warm-up."""
    if arguments.parquet is None:
        maker, other = TextMaker(arguments.seed), TextMaker(arguments.seed)
        other.random.seed(arguments.seed + 1)  # other texts of the same vocabulary
        warm_up = [other.punctuate(other.words(200)) for _ in range(WARM_UP_TEXTS)]
        made = ((size, [maker.pair(size) for _ in range(TOKENS // size)]) for size in SIZES)
        return f"generated, seed {arguments.seed}", made, warm_up
    texts = parquet_texts(arguments.parquet, arguments.columns)
    half = len(texts) // 2  # timed; the other half is for the warm-up
    warm_up = [text for pair in texts[half:][:WARM_UP_TEXTS] for text in pair]
    return f"{arguments.parquet.name}, {' and '.join(arguments.columns)}", cut_pairs(texts[:half]), warm_up


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--parquet", type=Path, help="read real pairs from this file (default: generate them)")
    parser.add_argument("--columns", nargs=2, metavar=("A", "B"), help="its columns of references and responses")
    parser.add_argument("--repetitions", type=int, default=5, help="timed runs of each row (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of generated texts (default 0)")
    arguments = parser.parse_args(argv)
    if (arguments.parquet is None) != (arguments.columns is None):
        parser.error("--parquet and --columns require each other")
    source, groups, warm_up = inputs(arguments)
    print(f"{describe('rouge_score', 'nltk', 'rapidfuzz')} Rouge-L on one core. Texts: {source}.")
    print(f"Peer: rouge_score, use_stemmer=True. Medians of {arguments.repetitions} repetitions; both texts of each")
    print("pair are tokenised every time; the stem cache of this project is warmed up with other texts.\n")
    rows = []
    for size, pairs in groups:
        if len(pairs) < PEER_STRIDE * arguments.repetitions:
            print(f"{size} tokens: only {len(pairs)} pairs are that long, too few for a row", file=sys.stderr)
        else:
            rows.append(measure(pairs, warm_up, arguments.repetitions))
    print(markdown_table(rows))


if __name__ == "__main__":
    main()
