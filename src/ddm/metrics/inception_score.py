"""How sure a classifier is of each generated picture, and how various it finds them."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from ddm.errors import RequestError
from ddm.metrics.checks import check_finite, exact
from ddm.metrics.intervals import around
from ddm.metrics.measurement import Embedded, Measurement, metrics
from ddm.seeding import shuffled


@metrics.register
def inception_score(real: Embedded, fake: Embedded, *, splits: Annotated[int, Ge(1)] = 1) -> Measurement:
    """``exp(mean KL(p(y|x) || p(y)))`` of the feature network's classes; Salimans et al. 2016 (arXiv 1606.03498).

    It sees no real picture. The interval is the delta method's: the influence of a picture on the logarithm is its own
    divergence minus the mean one. The paper's 10 splits only make the score smaller; they are drawn at random here,
    always the same way.

    Raises:
        RequestError: the feature space has no classes, or there are fewer than 2 pictures a split.
        DdmError: a logit is not finite.
    """
    if fake.logits is None:
        raise RequestError("inception_score: this feature space has no classes; allowed: one whose network classifies")
    if len(fake) < 2 * splits:
        raise RequestError(
            f"inception_score: {len(fake)} pictures are too few for splits={splits}; allowed: {2 * splits} or more"
        )
    check_finite("generated", fake.logits, what="logits")
    order = shuffled(len(fake))  # classes may take turns, or be sorted
    parts = [_score(fake.logits[part]) for part in order.tensor_split(splits)]
    value = sum(score for score, _ in parts) / splits
    error = sum(error**2 for _, error in parts) ** 0.5 / splits
    return Measurement(value, *around(value, error), better="higher", details={"n_fake": len(fake)})


def _score(logits: Tensor) -> tuple[float, float]:
    logarithms = exact(logits).log_softmax(1)
    share = logarithms.exp()
    # A class nobody gets has share 0 and adds 0 to every divergence, not 0 * inf.
    mean = share.mean(0).clamp(min=torch.finfo(share.dtype).tiny).log()
    divergence = (share * (logarithms - mean)).sum(1)
    score = float(divergence.mean().exp())
    return score, score * float(divergence.std()) / len(logits) ** 0.5
