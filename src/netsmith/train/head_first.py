"""The first share of training for the classifier alone, on what published weights already see.

A new classifier's first gradients are noise, and at the full rate they would spoil what the layers below know before
it has learned to ask for anything (Howard and Ruder 2018, section 3.3; Kumar et al. 2022, "Fine-tuning can distort
pretrained features"). Until then

- every layer but the classifiers, auxiliary ones too, is as in evaluation: running statistics are used and stay, and
  nothing is skipped at random; dropout before the classifier goes on;
- their weights ask for no gradient, so there is no backward pass through them: an update takes a third of its time;
- an optimizer remembers nothing about them, and their weights do not decay.

Whether a step is such a one is a function of its progress alone, so a run that goes on at any step goes on as it would
have.
"""

from torch import nn

from netsmith.run.recipe import Recipe
from netsmith.train.costs import EVEN, Phase
from netsmith.train.groups import classifiers

FORWARD = 1 / 3  # of an update, until it is measured: the backward pass is about twice the forward one


class HeadFirst:
    """Freezes and thaws.

    Args:
        network: that is trained.
        share: of progress in which only the classifier learns, 0 to 1.
    """

    def __init__(self, network: nn.Module, share: float) -> None:
        self.share = share
        heads = [network.get_submodule(name) for name in classifiers(network)]
        learning = {parameter for head in heads for parameter in head.parameters()}
        self._body = [each for each in network.modules() if each not in heads and not isinstance(each, nn.Dropout)]
        self._weights = [each for each in network.parameters() if each.requires_grad and each not in learning]
        self._frozen = False

    def at(self, progress: float) -> None:
        """Make the network ready for the update at `progress`; it is in training mode as a whole."""
        frozen = progress < self.share
        if frozen or self._frozen:
            for module in self._body:
                module.training = not frozen
        if frozen != self._frozen:
            for weight in self._weights:
                weight.requires_grad_(not frozen)
            self._frozen = frozen


def head_phases(recipe: Recipe) -> tuple[Phase, ...]:
    """What updates cost before and after all layers learn."""
    head = Phase(0.0, "head", FORWARD)
    if recipe.head_first == 0.0:
        return EVEN
    return (head,) if recipe.head_first == 1.0 else (head, Phase(recipe.head_first, "", 1.0))
