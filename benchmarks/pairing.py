"""Pairs the entries of a prediction file with questions, by place in the question file or by question id.

Guarantees: places and ids are those of the whole question file, so `limit` changes no pair; what could be paired in two
ways, and a file that answers too few or other questions, is refused. Two entries of a question file that ask the same
question under one id (BIRD's mini-dev) may share an answer.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.carriers import Answer, BenchmarkError, Key, QuestionSet

BIRD_MARK = "\t----- bird -----\t"


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One JSON line of a prediction file."""

    where: str
    """File and line, for errors."""
    place: int | None
    """`index`: the question's place in its file; None where the line gives its question_id alone."""
    key: Key | None
    """`question_id`, where the line gives it."""
    answer: Answer


def object_names(file: Path, entries: Mapping[str, object], asked: QuestionSet) -> list[str]:
    """The name of each question's entry in BIRD's object. Raises BenchmarkError.

    The published files count by id in dev and by place in mini-dev, whose ids repeat.
    """
    ids, places = [str(q.key) for q in asked.questions], [str(q.position) for q in asked.questions]
    all_ids, all_places = set(_ids(asked)), set(map(str, range(asked.whole)))
    by_id = set(ids) <= entries.keys() <= all_ids
    by_place = set(places) <= entries.keys() <= all_places
    unclear = sorted(asked.shared & set(ids))
    if by_id and by_place and ids != places and not unclear:
        return _named_databases_decide(file, entries, asked, ids, places)
    if by_place:
        return places
    if by_id:
        if unclear:
            raise BenchmarkError(
                f"{file}: question_id {', '.join(unclear[:3])} stands for different questions: count the predictions "
                f"by place, 0 to {asked.whole - 1}"
            )
        return ids
    nearer_ids = len(entries.keys() & all_ids) > len(entries.keys() & all_places)
    wanted, known = (ids, all_ids) if nearer_ids else (places, all_places)
    raise _unfit(file, len(wanted), missing=set(wanted) - entries.keys(), unknown=entries.keys() - known)


def line_answers(file: Path, lines: Sequence[Line], asked: QuestionSet) -> list[Answer]:
    """One answer a question, from JSON lines. Raises BenchmarkError."""
    ids = _ids(asked)
    found = _by_place(lines, ids, asked)
    unknown = {str(place) for place in found if not 0 <= place < asked.whole}
    # One line by id answers every question that is the same under that id.
    by_id = {str(line.key): line.answer for line in lines if line.place is None and str(line.key) not in asked.shared}
    answers = [found.get(q.position) or by_id.get(str(q.key)) for q in asked.questions]
    missing = [str(q.key) for q, answer in zip(asked.questions, answers, strict=True) if answer is None]
    if missing or unknown:
        raise _unfit(file, len(answers), missing=missing, unknown=unknown)
    return [answer for answer in answers if answer is not None]


def _by_place(lines: Sequence[Line], ids: Sequence[str], asked: QuestionSet) -> dict[int, Answer]:
    """The k-th line of an id answers the k-th question with that id."""
    places: dict[str, list[int]] = {}
    for place, key in enumerate(ids):
        places.setdefault(key, []).append(place)
    named = [str(line.key) for line in lines if line.place is None]
    in_order = named in (list(ids), [str(question.key) for question in asked.questions])
    seen: Counter[str] = Counter()
    found: dict[int, Answer] = {}
    for line in lines:
        key = str(line.key)
        if line.place is None:
            if key in asked.shared and not in_order:
                raise BenchmarkError(
                    f'{line.where}: question_id {key} stands for different questions: give "index" too, the place in '
                    "the question file from 0"
                )
            if key not in places:
                if len(ids) < asked.whole:
                    continue  # the rest of the whole set is not known
                raise BenchmarkError(f"{line.where}: there is no question {key} in {asked.name}")
            if seen[key] == len(places[key]):
                raise BenchmarkError(f"{line.where}: question {key} appears a {_ordinal(seen[key] + 1)} time")
            place = places[key][seen[key]]
            seen[key] += 1
        else:
            place = line.place
            if line.key is not None and 0 <= place < len(ids) and ids[place] != key:
                raise BenchmarkError(f"{line.where}: question {key} is not at place {place} of {asked.name}")
        if place in found:
            raise BenchmarkError(f"{line.where}: question {place} appears a second time")
        found[place] = line.answer
    return found


def _ids(asked: QuestionSet) -> list[str]:
    return [str(key) for key in asked.keys or (question.key for question in asked.questions)]


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")


def _named_databases_decide(
    file: Path, entries: Mapping[str, object], asked: QuestionSet, ids: Sequence[str], places: Sequence[str]
) -> list[str]:
    """Where ids are places of other questions, the entries' own databases say which reading is meant."""
    named = {tuple(names): strange_databases(entries, names, asked) for names in (ids, places)}
    fitting = [names for names, (strange, marked) in named.items() if marked and not strange]
    if len(fitting) != 1:
        raise BenchmarkError(
            f'{file}: its keys are places as well as ids of other questions: give JSON lines with "index" or '
            '"question_id"'
        )
    return list(fitting[0])


def strange_databases(entries: Mapping[str, object], names: Iterable[str], asked: QuestionSet) -> tuple[int, int]:
    """Entries that name another database than their question, and entries that name any."""
    marked = [
        (value.partition(BIRD_MARK)[2].strip(), question.db_id)
        for value, question in zip(map(entries.__getitem__, names), asked.questions, strict=True)
        if isinstance(value, str) and BIRD_MARK in value
    ]
    return sum(named != wanted for named, wanted in marked), len(marked)


def _unfit(file: Path, wanted: int, *, missing: Iterable[str], unknown: Iterable[str]) -> BenchmarkError:
    faults = []
    for what, keys in (("missing", sorted(missing, key=_numeric)), ("unknown", sorted(unknown, key=_numeric))):
        if keys:
            faults.append(f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})")
    return BenchmarkError(f"{file}: predictions for {wanted} questions expected; {' and '.join(faults)}")


def _numeric(key: str) -> tuple[int, str]:
    return (int(key) if key.isdecimal() and len(key) < 20 else 0, key)
