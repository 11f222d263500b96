"""Decisions of the race: beaten beyond noise goes, alike stays, whatever the order they come in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsmith.run.metrics import mcnemar
from netsmith.run.tagging import map_replicates
from netsmith.search.race import JUDGED_EPOCHS, AveragePrecision, RightAnswers, Standing, decide, ranking, rung_shares


def standing(id_, right, *, n=200, loss=1.0, seed=0, epochs=9.0, place=0):
    correct = np.zeros(n, dtype=bool)
    correct[np.random.default_rng(seed).permutation(n)[:right]] = True
    return Standing(id=id_, answers=RightAnswers(correct), loss=loss, epochs=epochs, place=place)


def answers(right, *, n=100):
    """The first `right` of n answered right, so that two differ in exactly that many."""
    correct = np.zeros(n, dtype=bool)
    correct[:right] = True
    return correct


def test_the_hopeless_go_and_the_close_stay():
    decision = decide([standing("b", 150, seed=1), standing("a", 160), standing("c", 90, seed=2)])
    assert decision.leader == "a"
    assert decision.kept == ("a", "b")
    assert set(decision.eliminated) == {"c"}
    assert decision.eliminated["c"] < 0.05


def test_never_inside_the_noise():
    """As many pairs of answers as the exact test needs for 5 % and one fewer: 6 to 0 goes, 5 to 0 stays."""
    n = 50
    base = np.ones(n, dtype=bool)
    five, six = base.copy(), base.copy()
    five[:5] = False
    six[:6] = False
    decision = decide(
        [
            Standing(id=i, answers=RightAnswers(c), loss=1.0, epochs=9.0, place=0)
            for i, c in (("all", base), ("five", five), ("six", six))
        ]
    )
    assert decision.kept == ("all", "five")
    assert decision.eliminated == {"six": pytest.approx(2 * 0.5**6)}


def test_nobody_is_judged_before_its_time():
    unripe = standing("slow", 30, seed=2, epochs=JUDGED_EPOCHS - 0.1)
    assert decide([standing("fast", 150), unripe]).kept == ("fast", "slow")
    ripe = standing("slow", 30, seed=2, epochs=JUDGED_EPOCHS)
    assert decide([standing("fast", 150), ripe]).kept == ("fast",)


def test_equal_accuracy_is_ranked_by_loss_then_name():
    same = standing("x", 100).answers
    standings = [
        Standing(id=id_, answers=same, loss=loss, epochs=9.0, place=0)
        for id_, loss in (("c", 0.5), ("b", 0.4), ("a", 0.5))
    ]
    assert [s.id for s in ranking(standings)] == ["b", "a", "c"]


def test_one_alone_wins():
    assert decide([standing("only", 3)]).kept == ("only",)


def test_promise_leads_until_the_answers_say_otherwise():
    """One picture of difference is one standard error, two are more: then the answers decide."""
    favourite = Standing(id="favourite", answers=RightAnswers(answers(50)), loss=1.0, epochs=9.0, place=0)
    one = Standing(id="one", answers=RightAnswers(answers(51)), loss=1.0, epochs=9.0, place=1)
    two = Standing(id="two", answers=RightAnswers(answers(52)), loss=1.0, epochs=9.0, place=2)
    assert decide([one, favourite]).kept == ("favourite", "one")
    assert decide([two, favourite]).kept == ("two", "favourite")
    assert decide([two, one, favourite]).kept == ("one", "two", "favourite")


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_matter(rights, random):
    standings = [standing(f"c{i}", right, n=60, seed=i, place=i) for i, right in enumerate(rights)]
    shuffled = list(standings)
    random.shuffle(shuffled)
    first, second = decide(standings), decide(shuffled)
    assert first == second
    leader = next(s for s in standings if s.id == first.leader)
    for s in standings:
        gone = s.id in first.eliminated
        assert gone == (s.score < leader.score and mcnemar(leader.answers.correct, s.answers.correct) < 0.05)
        assert gone != (s.id in first.kept)


@pytest.mark.parametrize("rungs", [1, 2, 3, 5])
def test_rungs_share_all_of_the_time_and_the_first_gets_most(rungs):
    shares = rung_shares(rungs)
    assert len(shares) == rungs
    assert sum(shares) == pytest.approx(1.0)
    assert max(shares) == shares[0]


def tagger(id_, noise, *, place=0, loss=1.0):
    """One that tags 400 pictures, worse the more noise."""
    rng = np.random.default_rng(0)
    targets = rng.random((400, 4)) < 0.3
    logits = targets + 0.5 * rng.normal(size=targets.shape)
    logits = logits + noise * np.random.default_rng(len(id_)).normal(size=targets.shape)
    return Standing(
        id=id_, answers=AveragePrecision(map_replicates(logits, targets)), loss=loss, epochs=9.0, place=place
    )


def test_taggers_go_when_the_same_pictures_show_them_worse_and_the_close_stay():
    decision = decide([tagger("poor", 3.0), tagger("close", 0.05), tagger("good", 0.0)])
    assert set(decision.kept) == {"good", "close"}
    assert decision.eliminated["poor"] < 0.001
    assert decide([tagger("good", 0.0, place=1), tagger("close", 0.02, place=0)]).leader == "close"
