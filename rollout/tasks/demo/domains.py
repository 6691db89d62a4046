"""The four demo domains, as data: a parent table, a child table that refers to it, and their columns' values."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Entity:
    """One table and the words that questions use for it."""

    table: str
    plural: str
    label: str
    """Text column with a unique value in every row; what list questions ask for."""
    label_words: tuple[tuple[str, ...], tuple[str, ...]]
    """First and second words that labels are composed of."""
    categories: Mapping[str, tuple[str, ...]]
    """Text columns and their possible values."""
    numbers: Mapping[str, tuple[int, int]]
    """Integer columns and their inclusive ranges; a column's values are pairwise different, so sorting has no ties."""
    rows: int

    @property
    def key(self) -> str:
        return f"{self.table}_id"


@dataclass(frozen=True, kw_only=True, slots=True)
class Domain:
    """A database of two tables; `child` carries the parent's key as a foreign key."""

    db_id: str
    parent: Entity
    child: Entity


_FIRST_NAMES = ("Ada", "Bruno", "Clara", "Dario", "Edith", "Farid", "Greta", "Hugo", "Irene", "Jonas")
_LAST_NAMES = ("Abel", "Brandt", "Costa", "Dunn", "Ekberg", "Fabre", "Galli", "Holm")
_MOODS = ("Silent", "Golden", "Broken", "Distant", "Hidden", "Winter", "Scarlet", "Hollow", "Wild", "Early")
_PLACES = ("Harbor", "Garden", "River", "Mountain", "Letter", "Kingdom", "Forest", "Island")
_LETTERS = ("QA", "QB", "QC", "QD", "QE", "QF", "QG", "QH", "QK", "QL")
_DIGITS = ("101", "202", "303", "404", "505", "606", "707", "808")

DOMAINS = (
    Domain(
        db_id="bookshop",
        parent=Entity(
            table="author",
            plural="authors",
            label="name",
            label_words=(_FIRST_NAMES, _LAST_NAMES),
            categories={"country": ("France", "Japan", "Brazil", "Kenya")},
            numbers={"age": (20, 95), "awards": (10, 70)},
            rows=32,
        ),
        child=Entity(
            table="book",
            plural="books",
            label="title",
            label_words=(_MOODS, _PLACES),
            categories={"genre": ("poetry", "crime", "history", "travel", "drama")},
            numbers={"chapters": (10, 99), "price": (10, 99)},
            rows=64,
        ),
    ),
    Domain(
        db_id="airline",
        parent=Entity(
            table="pilot",
            plural="pilots",
            label="name",
            label_words=(_FIRST_NAMES, _LAST_NAMES),
            categories={"base": ("Oslo", "Lima", "Cairo", "Delhi")},
            numbers={"age": (24, 66), "medals": (10, 80)},
            rows=32,
        ),
        child=Entity(
            table="flight",
            plural="flights",
            label="code",
            label_words=(_LETTERS, _DIGITS),
            categories={"aircraft": ("jet", "turboprop", "glider"), "class": ("economy", "business", "cargo")},
            numbers={"delay": (10, 99), "seats": (10, 99)},
            rows=64,
        ),
    ),
    Domain(
        db_id="clinic",
        parent=Entity(
            table="doctor",
            plural="doctors",
            label="name",
            label_words=(_FIRST_NAMES, _LAST_NAMES),
            categories={"specialty": ("surgery", "cardiology", "radiology", "pediatrics")},
            numbers={"age": (30, 75), "experience": (10, 55)},
            rows=32,
        ),
        child=Entity(
            table="patient",
            plural="patients",
            label="name",
            label_words=(_FIRST_NAMES, _LAST_NAMES),
            categories={"city": ("Geneva", "Porto", "Leeds", "Turin"), "blood": ("A", "B", "O")},
            numbers={"visits": (10, 90), "weight": (20, 99)},
            rows=64,
        ),
    ),
    Domain(
        db_id="orchard",
        parent=Entity(
            table="grower",
            plural="growers",
            label="name",
            label_words=(_FIRST_NAMES, _LAST_NAMES),
            categories={"region": ("north", "south", "east", "west")},
            numbers={"hectares": (10, 90), "workers": (10, 75)},
            rows=32,
        ),
        child=Entity(
            table="harvest",
            plural="harvests",
            label="batch",
            label_words=(_LETTERS, _DIGITS),
            categories={"fruit": ("apple", "cherry", "plum", "pear"), "quality": ("prime", "standard", "juice")},
            numbers={"tons": (10, 99), "days": (10, 90)},
            rows=64,
        ),
    ),
)
