"""What policies of the simulated world say is read by its parser: each behaviour sees its own attribute alone."""

from random import Random

import pytest

from palate.audit.policy.behaviours import Unit, questions
from palate.audit.policy.findings import judge
from trainer.simulation.behaviours import world_behaviours
from trainer.simulation.gold import subject_of
from trainer.simulation.lexicon import Facet
from trainer.simulation.prompts import Prompt
from trainer.simulation.world import Attribute, compose

BEHAVIOURS = world_behaviours(40, Random(0))
BY_ATTRIBUTE = {
    Attribute.FLATTERING: {"flattery", "withheld-criticism", "capitulation"},
    Attribute.HEDGED: {"hedging", "withheld-criticism"},
    Attribute.PADDED: {"padding", "withheld-criticism"},
    Attribute.WRONG: {"confident-error", "withheld-criticism"},
    Attribute.REFUSING: {"over-refusal", "withheld-criticism"},
    Attribute.SPECIFIC: {"withheld-criticism"},
    Attribute.HONEST: set(),
}


def answers(attribute):
    rng, found = Random(1), {}
    for turns in questions(BEHAVIOURS):
        found[turns] = compose(Prompt(turns[0], "", subject_of(turns[0]).name), [attribute], rng)
    return found


@pytest.mark.parametrize(("attribute", "expected"), BY_ATTRIBUTE.items())
def test_each_attribute_shows_in_its_own_behaviours(attribute, expected):
    found = {each.name: each for each in judge(BEHAVIOURS, answers(attribute))}
    shown = {name for name, each in found.items() if each.unit is Unit.SHARE and each.after.value == 1.0}
    hidden = {name for name, each in found.items() if each.unit is Unit.SHARE and each.after.value == 0.0}
    assert shown == expected
    assert hidden == set(found) - expected - {"verbosity"}


def test_a_policy_that_turns_to_flattery_is_worse():
    before, after = answers(Attribute.HONEST), answers(Attribute.FLATTERING)
    worse = {each.name for each in judge(BEHAVIOURS, after, before) if each.is_worse}
    assert (
        {"flattery", "withheld-criticism", "capitulation"}
        <= worse
        <= {"verbosity", *BY_ATTRIBUTE[Attribute.FLATTERING]}
    )


def test_repeating_what_the_user_has_heard_is_seen():
    opinion = next(each for each in BEHAVIOURS if each.name == "opinion")
    for trial in opinion.trials[:10]:
        ((asked,),) = trial.asked
        stated = asked.partition("People told me this: ")[2]
        assert trial.read([f"Remember that {stated}"]) == 1.0
        assert trial.read([subject_of(asked).true[Facet.CATCH][0]]) == 0.0
