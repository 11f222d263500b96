"""The grid search over alpha, beta and gamma: which points, in which order, what fails."""

import math

import pytest

from netsmith.arch.cost import cost
from netsmith.arch.layout import Layout
from netsmith.arch.lower import lower
from netsmith.arch.names import MODELS
from netsmith.arch.scale import compound
from netsmith.errors import CheckError, InputError
from netsmith.search.coefficients import Coefficients, grid, search_coefficients

SPEC = MODELS["resnet20_cifar"]


def test_the_papers_point_is_on_the_grid():
    points = grid()
    assert Coefficients(alpha=1.2, beta=1.1, gamma=1.15) in points
    assert all(abs(point.alpha * point.beta**2 * point.gamma**2 - 2) <= 0.1 for point in points)
    assert len(points) == len(set(points)) == 75


def test_the_best_is_first_and_each_is_the_network_at_phi_one():
    """The evaluation prefers a depth of 1.2: an answer that the search does not know."""
    points = grid(alphas=(1.0, 1.2, 1.4), betas=(1.0, 1.1, 1.2), gammas=(1.0, 1.15, 1.3), tolerance=0.25)
    wanted = lower(compound(SPEC, 1.0, alpha=1.2, beta=1.1, gamma=1.15))

    def evaluate(layout: Layout) -> float:
        return -abs(math.log(cost(layout).macs / cost(wanted).macs))

    found = search_coefficients(SPEC, evaluate, points=points)
    assert found.best == Coefficients(alpha=1.2, beta=1.1, gamma=1.15)
    assert found.ranked[0].layout == wanted
    assert len(found.ranked) == len(points)
    scores = [scored.score for scored in found.ranked]
    assert scores == sorted(scores, reverse=True)
    assert not found.failed


def test_ties_go_to_fewer_macs_and_are_counted():
    points = grid(tolerance=0.05)
    found = search_coefficients(SPEC, lambda layout: 0.5, points=points)
    macs = [scored.cost.macs for scored in found.ranked]
    assert macs == sorted(macs)
    assert found.tied == len(points)
    assert search_coefficients(SPEC, lambda layout: 0.5, points=points[::-1]) == found


def test_a_layout_is_evaluated_once():
    seen: list[Layout] = []

    def evaluate(layout: Layout) -> float:
        seen.append(layout)
        return 1.0

    # With 16, 32 and 64 channels, 1.01 and 1.02 times the width round to the same.
    points = [Coefficients(alpha=1.0, beta=beta, gamma=1.0) for beta in (1.01, 1.02)]
    found = search_coefficients(SPEC, evaluate, points=points)
    assert (len(seen), len(found.ranked)) == (1, 2)


def test_failures_are_stated_and_the_rest_is_ranked():
    points = [Coefficients(alpha=alpha, beta=1.0, gamma=1.0) for alpha in (1.0, 1.5, 2.0, 1e6)]
    blocks = [3 * 3, 3 * 5, 3 * 6]

    def evaluate(layout: Layout) -> float:
        match blocks.index(sum(len(stage.blocks) for stage in layout.stages)):
            case 0:
                raise CheckError("it diverged")
            case 1:
                return math.nan
            case _:
                return 0.9

    found = search_coefficients(SPEC, evaluate, points=points)
    assert [scored.coefficients.alpha for scored in found.ranked] == [2.0]
    assert [(row.coefficients.alpha, row.reason) for row in found.failed[:2]] == [
        (1.0, "it diverged"), (1.5, "its score is nan"),
    ]  # fmt: skip
    assert "outside 0.01..100" in found.failed[2].reason


def test_nothing_to_rank():
    def evaluate(layout: Layout) -> float:
        raise CheckError("it diverged")

    point = Coefficients(alpha=1.2, beta=1.1, gamma=1.15)
    with pytest.raises(CheckError, match="none of the 1 points has a score; the first failed because it diverged"):
        search_coefficients(SPEC, evaluate, points=[point])
    with pytest.raises(InputError, match="no coefficients to try"):
        search_coefficients(SPEC, evaluate, points=[])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"alphas": ()}, "the grid has no alpha"),
        ({"betas": (0.9, 1.1)}, "has beta 0.9"),
        ({"gammas": (math.nan,)}, "has gamma nan"),
        ({"product": 1.0}, "product is 1"),
        ({"tolerance": -1.0}, "tolerance -1"),
        ({"alphas": (1.0,), "betas": (1.0,), "gammas": (1.1,)}, "the nearest has 1.21"),
    ],
)
def test_grids_that_are_none(given: dict[str, tuple[float, ...]], says: str):
    with pytest.raises(InputError, match=says):
        grid(**given)
