"""Compose the rows of the demo's datasets from the hand-written word banks in `banks/`.

Each builder takes a seeded `Draw` and the number of rows, and returns that many distinct rows. Row `i` of a
classification has label `i` modulo the number of classes, so that any cut at a multiple of it is balanced.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tools.demo.grammar import Deck, Draw, Writer, sentence_case

Row = dict[str, Any]
Bank = dict[str, Any]

BANKS = Path(__file__).parent / "banks"
RIVAL_SLOT = {"who": "other", "other": "who", "day": "later", "later": "day"}


def load_bank(name: str) -> Bank:
    """Return the parsed word bank `name`."""
    bank: Bank = yaml.safe_load((BANKS / f"{name}.yaml").read_text(encoding="utf-8"))
    return bank


def distinct(make: Callable[[int], Row], count: int, *, key: Callable[[Row], str]) -> list[Row]:
    """Return `make(0)` to `make(count - 1)`, drawing again while a key has been seen before.

    Raises ValueError if the word banks do not give `count` distinct rows.
    """
    rows: dict[str, Row] = {}
    for _ in range(20 * count):
        if len(rows) == count:
            return list(rows.values())
        row = make(len(rows))
        rows.setdefault(key(row), row)
    raise ValueError(f"only {len(rows)} distinct rows of {count} requested: enlarge the word banks")


def town_news(draw: Draw, count: int) -> list[Row]:
    """Build newspaper items: `text` and `label` (0 local government, 1 sports, 2 business, 3 science and nature)."""
    bank, shared = load_bank("news"), load_bank("shared")
    sections = bank["sections"]
    decks = {section: Deck(bank["frames"][section], draw) for section in sections}

    def make(index: int) -> Row:
        label = index % len(sections)
        writer = Writer(draw, shared | bank["banks"])
        parts = [decks[sections[label]].deal()]
        if draw.chance(0.3):
            parts.insert(0, draw.one(bank["before"]))
        if draw.chance(0.8):
            parts.append(draw.one(bank["after"]))
        return {"text": writer.sentence(" ".join(parts)), "label": label}

    return distinct(make, count, key=lambda row: row["text"])


def shop_remarks(draw: Draw, count: int) -> list[Row]:
    """Build customers' remarks: `remark`, `liked` (1 if the customer was pleased, else 0) and `kind` (its subject)."""
    bank, shared = load_bank("remarks"), load_bank("shared")
    kinds = Deck(list(bank["kinds"]), draw)
    frames = Deck(bank["frames"]["plain"] + bank["frames"]["mixed"], draw)

    def make(index: int) -> Row:
        liked, kind = index % 2, kinds.deal()
        mood, contrary = ("good", "bad") if liked else ("bad", "good")
        aspects, use = bank["kinds"][kind]["aspects"], bank["kinds"][kind]["use"]
        first, second, third = draw.shuffled(list(aspects))[:3]
        values = {
            "same": draw.one(aspects[first][mood]),
            "also": draw.one(aspects[second][mood]),
            "opposite": draw.one(aspects[third][contrary]),
            "verdict": draw.one(bank["verdicts"][mood]["any"] + bank["verdicts"][mood][use]),
            "context": draw.one(bank["context"]["any"] + bank["context"][use]),
        }
        remark = Writer(draw, shared, values=values).sentence(frames.deal())
        return {"remark": remark, "liked": liked, "kind": kind}

    return distinct(make, count, key=lambda row: row["remark"])


def handy_things(draw: Draw, count: int) -> list[Row]:
    """Build everyday problems: `situation`, `question`, four `choices`, and `answer`, the one choice that helps."""
    bank, shared = load_bank("things"), load_bank("shared")
    needs = bank["needs"]
    deck = Deck(list(needs), draw)

    def make(index: int) -> Row:
        del index
        need = deck.deal()
        wrong = [other for other in needs if not serves(other, need, needs)]
        # One wrong choice from the same setting: a kitchen alone must not give the answer away.
        near = draw.one([other for other in wrong if needs[other]["setting"] == needs[need]["setting"]])
        far = draw.shuffled([other for other in wrong if other != near])[:2]
        answer = draw.one(needs[need]["things"])
        choices = draw.shuffled([answer, *(draw.one(needs[other]["things"]) for other in (near, *far))])
        writer = Writer(draw, shared, values={"name": draw.one(shared["name"])})
        situation = writer.sentence(draw.one(needs[need]["situations"]))
        question = writer.sentence(draw.one(bank["questions"]))
        return {"situation": situation, "question": question, "choices": choices, "answer": answer}

    return distinct(make, count, key=lambda row: row["situation"])


def serves(other: str, need: str, needs: Bank) -> bool:
    """Return whether the things of `other` might meet `need`: the same need, or an alternative named by either."""
    return other == need or need in needs[other].get("also", ()) or other in needs[need].get("also", ())


def event_notices(draw: Draw, count: int) -> list[Row]:
    """Build public events: facts (`bring` may be null), opening words (`lead`), `notice` and `headline`."""
    bank, shared = load_bank("notices"), load_bank("shared")
    events = Deck([f"{group}|{event}" for group, entry in bank["groups"].items() for event in entry["events"]], draw)
    leads = Deck(list(bank["openings"]), draw)

    def make(index: int) -> Row:
        del index
        group, event = events.deal().split("|")
        facts = {
            "event": event,
            "place": draw.one(bank["groups"][group]["places"]),
            "day": draw.one(shared["day"]),
            "time": draw.one(hours(event, bank["times"])),
            "price": draw.one(bank["prices"]),
        }
        bring = draw.one(bank["groups"][group]["bring"]) if draw.chance(0.5) else None
        lead = leads.deal()
        writer = Writer(draw, {}, values=facts | {"bring": bring or ""})
        opening = draw.one(bank["openings"][lead])
        entry = draw.one(bank["free"] if facts["price"] == "free" else bank["paid"])
        ending = draw.one(bank["bring"]) if bring else "."
        notice, headline = writer.sentence(opening + entry + ending), writer.sentence(draw.one(bank["headlines"]))
        return {**facts, "bring": bring, "lead": lead, "notice": notice, "headline": headline}

    return distinct(make, count, key=lambda row: "|".join(str(row[fact]) for fact in ("event", "place", "day", "time")))


def hours(event: str, times: list[Bank]) -> list[str]:
    """Return the times of day that suit `event`: those of the first entry with a word of its name."""
    return next(entry["at"] for entry in times if any(word in event for word in entry["words"]))


def short_passages(draw: Draw, count: int) -> list[Row]:
    """Build passages, each with a `question`, its `answer` and four `options`, all of which occur in the passage."""
    bank, shared = load_bank("passages"), load_bank("shared")
    scenes = Deck(list(bank["scenes"]), draw)

    def make(index: int) -> Row:
        del index
        scene = bank["scenes"][scenes.deal()]
        banks = {slot: [str(entry) for entry in entries] for slot, entries in (bank["common"] | scene["slots"]).items()}
        who, other = draw.shuffled(shared["name"])[:2]
        day, later = draw.shuffled(shared["day"])[:2]
        values = {slot: draw.one(entries) for slot, entries in banks.items()}
        values |= {"who": who, "other": other, "day": day, "later": later, "town": draw.one(shared["town"])}
        writer = Writer(draw, {}, values=values)
        sentences = [sentence_case(writer.fill(draw.one(variants))) for variants in scene["sentences"]]
        if draw.chance(0.6):
            sentences.insert(1 + draw.below(len(sentences)), draw.one(bank["fillers"]))
        asked = draw.one(scene["questions"])
        question, answer = writer.sentence(draw.one(asked["ask"])), answer_text(asked, values)
        options = draw.shuffled(
            [answer, *rivals(asked, scene["questions"], values=values, question=question, draw=draw)]
        )
        return {"passage": " ".join(sentences), "question": question, "options": options, "answer": answer}

    return distinct(make, count, key=lambda row: row["passage"])


def answer_text(asked: Bank, values: dict[str, str]) -> str:
    """Return the answer to a question of a scene: the value of its slot, with its unit if any."""
    return " ".join(filter(None, (values[asked["answer"]], asked.get("unit"))))


def rivals(asked: Bank, questions: list[Bank], *, values: dict[str, str], question: str, draw: Draw) -> list[str]:
    """Return three wrong options: the rival of the same kind first, if any, then answers to other questions."""
    others = draw.shuffled([answer_text(each, values) for each in questions if each["answer"] != asked["answer"]])
    if asked["answer"] in RIVAL_SLOT:
        others.insert(0, values[RIVAL_SLOT[asked["answer"]]])
    return [text for text in dict.fromkeys(others) if text not in question][:3]
