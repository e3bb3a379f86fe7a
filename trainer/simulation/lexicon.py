"""What is true in the simulated world: its subjects, and for each of them true points and near misses."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Facet(StrEnum):
    """What a point is about; the facet decides which sentences can carry it."""

    COST = "cost"
    CUSTOMER = "customer"
    HABIT = "habit"
    RISK = "risk"
    STEP = "step"
    CATCH = "catch"  # the honest critique: unit economics of a business, the hard part of anything else


@dataclass(frozen=True, slots=True)
class Subject:
    """Something people ask about.

    Attributes:
        name: Key of the subject.
        act: What the asker wants to do, as it follows "I want to".
        noun: The same as a noun phrase.
        business: Whether it is a business idea (it has customers) or an everyday plan (it has habits).
        true: Points that hold for this subject, by facet.
        near: Points that sound right and are wrong: only an expert notices.
    """

    name: str
    act: str
    noun: str
    business: bool
    true: Mapping[Facet, tuple[str, ...]]
    near: Mapping[Facet, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Pair:
    """The true points of one facet, and the near miss beside them."""

    true: tuple[str, ...]
    near: str


def _subject(name: str, act: str, noun: str, *, business: bool = True, **facets: _Pair) -> Subject:
    pairs = {Facet(facet): pair for facet, pair in facets.items()}
    true = {facet: pair.true for facet, pair in pairs.items()}
    near = {facet: (pair.near,) for facet, pair in pairs.items()}
    return Subject(name, act, noun, business, true, near)


def _p(*true: str, near: str) -> _Pair:
    return _Pair(true, near)


SUBJECTS: tuple[Subject, ...] = (
    _subject(
        "bakery",
        "open a bakery",
        "a bakery",
        cost=_p("a used oven costs about 8,000 dollars", near="a used oven costs about 200 dollars"),
        customer=_p("office workers before nine", "cafes that order bread daily", near="night guards after midnight"),
        risk=_p("unsold bread at closing time", "a rise in flour prices", near="a shortage of salt"),
        step=_p("sell thirty loaves at a market", "bake for ten neighbors", near="sign a lease for ten years"),
        catch=_p("a loaf sells for 4 dollars and costs 3", near="a loaf sells for 9 dollars and costs 1"),
    ),
    _subject(
        "app",
        "build a language app",
        "a language app",
        cost=_p("good audio lessons cost about 20,000 dollars", near="good audio lessons cost about 200 dollars"),
        customer=_p("nurses who move abroad", "parents with two languages", near="people who never travel"),
        risk=_p("users who leave after one week", "free apps from big companies", near="a shortage of words"),
        step=_p("teach one lesson to five users", "show a paper version to nurses", near="launch in fifty languages"),
        catch=_p("a new user costs 9 dollars and pays 2", near="a new user costs 1 dollar and pays 40"),
    ),
    _subject(
        "dogs",
        "open a dog grooming salon",
        "a dog grooming salon",
        cost=_p("a bath and dryer cost about 5,000 dollars", near="a bath and dryer cost about 100 dollars"),
        customer=_p("owners of poodles", "older people with small dogs", near="owners of wild dogs"),
        risk=_p("a dog that bites your staff", "empty days in the middle of the week", near="dogs that grow no hair"),
        step=_p("groom six dogs of friends", "work one month in a salon", near="rent a hall for a hundred dogs"),
        catch=_p(
            "a haircut earns 50 dollars and takes two hours", near="a haircut earns 50 dollars and takes ten minutes"
        ),
    ),
    _subject(
        "truck",
        "run a food truck",
        "a food truck",
        cost=_p("a used truck costs about 40,000 dollars", near="a used truck costs about 900 dollars"),
        customer=_p("builders at lunch time", "guests at summer festivals", near="families at breakfast in winter"),
        risk=_p("rainy weeks with no sales", "a permit for the wrong street", near="a shortage of paper plates"),
        step=_p(
            "cook at one festival with a rented truck",
            "cut the menu to four dishes",
            near="print a menu of ninety dishes",
        ),
        catch=_p("a taco sells for 5 dollars and costs 4", near="a taco sells for 15 dollars and costs 1"),
    ),
    _subject(
        "repair",
        "open a phone repair shop",
        "a phone repair shop",
        cost=_p(
            "tools and spare screens cost about 4,000 dollars", near="tools and spare screens cost about 60 dollars"
        ),
        customer=_p(
            "students with broken screens", "drivers who need phones for work", near="collectors of old radios"
        ),
        risk=_p("fake parts that fail", "phones that are glued shut", near="phones that never break"),
        step=_p(
            "fix twenty phones of friends",
            "find two part dealers you trust",
            near="order parts for every phone ever made",
        ),
        catch=_p(
            "a screen job brings 80 dollars and the part costs 65",
            near="a screen job brings 80 dollars and the part costs 3",
        ),
    ),
    _subject(
        "candles",
        "sell candles online",
        "an online candle shop",
        cost=_p("wax and jars cost about 700 dollars", near="wax and jars cost about 50,000 dollars"),
        customer=_p("people who buy wedding gifts", "small spas", near="sailors on long trips"),
        risk=_p("jars that crack in the mail", "copies from cheap sellers", near="wax that never melts"),
        step=_p("burn test every scent for a week", "sell at one craft fair", near="rent a store in the mall"),
        catch=_p("a candle sells for 18 dollars and ads take 12", near="a candle sells for 18 dollars and ads take 1"),
    ),
    _subject(
        "tomatoes",
        "grow tomatoes on my balcony",
        "growing tomatoes at home",
        business=False,
        cost=_p("pots and soil cost about 60 dollars", near="pots and soil cost about 4,000 dollars"),
        habit=_p("water every morning", "six hours of sun", near="water once a month"),
        risk=_p("wet leaves that rot", "frost in late spring", near="too much sun in summer"),
        step=_p("buy two strong young plants", "pick a pot with holes", near="plant the seeds in december"),
        catch=_p("each tomato costs more than one from the store", near="each tomato costs nothing at all"),
    ),
    _subject(
        "guitar",
        "learn the guitar",
        "playing the guitar",
        business=False,
        cost=_p("a decent used guitar costs about 150 dollars", near="a decent used guitar costs about 6,000 dollars"),
        habit=_p("twenty minutes of practice a day", "slow chord changes", near="one long session a month"),
        risk=_p("sore fingers in the first weeks", "songs that are too fast", near="strings that are too clean"),
        step=_p("learn three easy chords", "play one simple song", near="start with a fast solo"),
        catch=_p("most beginners stop after two months", near="most beginners play concerts after two months"),
    ),
)
