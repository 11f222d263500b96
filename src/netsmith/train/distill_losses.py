"""What a student is taught by, as functions of its answers and its teachers'.

Teachers come as log-probabilities at the temperature, so one teacher and the averaged probabilities of several are the
same thing. Every loss is scaled by the square of the temperature, by which soft targets shrink gradients (Hinton et al.
2015, section 2), and is a mean over the pictures of the batch; only DIST's second part is a function of them together.

Sources: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531); Zhao et al. 2022, "Decoupled Knowledge Distillation" (arXiv
2203.08679), without the warm-up of its code; Huang et al. 2022, "Knowledge Distillation from a Stronger Teacher" (arXiv
2205.10536); Romero et al. 2015, "FitNets" (arXiv 1412.6550).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

TINY = 1e-8
"""Keeps quotients of norms finite where a row or a map is constant."""


def averaged(logits: Tensor, temperature: float) -> Tensor:
    """Log-probabilities of classes, averaged over teachers as probabilities.

    Args:
        logits: float32 [K,N,C] of K teachers.
        temperature: that they are divided by, above 0.

    Returns:
        float32 [N,C].
    """
    return F.log_softmax(logits / temperature, dim=2).logsumexp(dim=0) - math.log(len(logits))


def averaged_tags(logits: Tensor, temperature: float) -> Tensor:
    """Log-probabilities of having each tag and of not having it, averaged over teachers as probabilities.

    Args:
        logits: float32 [K,N,C] of K teachers.
        temperature: that they are divided by, above 0.

    Returns:
        float32 [2,N,C].
    """
    both = torch.stack([F.logsigmoid(logits / temperature), F.logsigmoid(-logits / temperature)])
    return both.logsumexp(dim=1) - math.log(len(logits))


def soft_targets(logits: Tensor, taught: Tensor, *, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the student from its teachers (Hinton et al. 2015).

    Args:
        logits: float32 [N,C] of the student.
        taught: float32 [N,C], log-probabilities at the temperature.
        temperature: above 0.
    """
    found = F.log_softmax(logits / temperature, dim=1)
    return temperature**2 * (taught.exp() * (taught - found)).sum(dim=1).mean()


def soft_tags(logits: Tensor, taught: Tensor, *, temperature: float) -> Tensor:
    """As `soft_targets`, of every tag by itself, summed over the tags of a picture as `Tag` sums them.

    Args:
        logits: float32 [N,C] of the student.
        taught: float32 [2,N,C], see `averaged_tags`.
        temperature: above 0.
    """
    found = torch.stack([F.logsigmoid(logits / temperature), F.logsigmoid(-logits / temperature)])
    return temperature**2 * (taught.exp() * (taught - found)).sum(dim=(0, 2)).mean()


def decoupled(
    logits: Tensor, taught: Tensor, classes: Tensor, *, temperature: float, alpha: float, beta: float
) -> Tensor:
    """How sure of the class to be, and how the others compare, weighed apart (Zhao et al. 2022, equation 7).

    Args:
        logits: float32 [N,C] of the student.
        taught: float32 [N,C], log-probabilities at the temperature.
        classes: int64 [N], the class of each picture.
        temperature: above 0.
        alpha: weight of the class against all others.
        beta: weight of the others among themselves; in Hinton's it is one less the teacher's probability of the class.
    """
    found = F.log_softmax(logits / temperature, dim=1)
    right = F.one_hot(classes, logits.shape[1]).bool()
    wanted, answered = (_class_and_others(each, right) for each in (taught, found))
    of_class = (wanted.exp() * (wanted - answered)).sum(dim=1)
    # The class is taken out before the others are normalised, so nothing is left of it however sure one is.
    theirs, ours = (F.log_softmax(each.masked_fill(right, -math.inf), dim=1) for each in (taught, found))
    of_others = (theirs.exp() * (theirs - ours).masked_fill(right, 0.0)).sum(dim=1)
    return temperature**2 * (alpha * of_class + beta * of_others).mean()


def _class_and_others(log_probabilities: Tensor, right: Tensor) -> Tensor:
    """float32 [N,2]: log-probability of the class, and of all others together."""
    of_class = log_probabilities.masked_fill(~right, 0.0).sum(dim=1)
    return torch.stack([of_class, log_probabilities.masked_fill(right, -math.inf).logsumexp(dim=1)], dim=1)


def correlated(logits: Tensor, taught: Tensor, *, temperature: float, alpha: float, beta: float) -> Tensor:
    """How unlike the order of things is: of the classes on a picture, of the pictures for a class (Huang et al. 2022).

    Args:
        logits: float32 [N,C] of the student.
        taught: float32 [N,C], log-probabilities at the temperature.
        temperature: above 0.
        alpha: weight of the first, one less the mean correlation over pictures ("inter").
        beta: weight of the second, over classes ("intra"); it takes the pictures of the batch, or of the part of it
            that is computed at once, together.
    """
    found, wanted = F.softmax(logits / temperature, dim=1), taught.exp()
    inter, intra = (1.0 - _pearson(found, wanted, dim=dim).mean() for dim in (1, 0))
    return temperature**2 * (alpha * inter + beta * intra)


def _pearson(ours: Tensor, theirs: Tensor, *, dim: int) -> Tensor:
    a, b = (each - each.mean(dim=dim, keepdim=True) for each in (ours, theirs))
    return (a * b).sum(dim=dim) / (a.norm(dim=dim) * b.norm(dim=dim) + TINY)


def hinted(ours: Tensor, theirs: Tensor) -> Tensor:
    """Squared distance of two maps over the square of the teacher's, so that its weight means the same everywhere.

    The larger map is averaged down to the smaller one's size, because FitNets' stages see alike areas.

    Args:
        ours: float [N,C,H,W] of the student, brought to the teacher's channels.
        theirs: float [N,C,H',W'] of the teacher.
    """
    height, width = (min(ours.shape[axis], theirs.shape[axis]) for axis in (2, 3))
    ours, theirs = (F.adaptive_avg_pool2d(each.float(), (height, width)) for each in (ours, theirs))
    distance, square = (each.square().flatten(1).mean(dim=1) for each in (ours - theirs, theirs))
    return (distance / (square + TINY)).mean()
