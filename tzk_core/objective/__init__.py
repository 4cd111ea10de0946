r"""What training maximises (design, section 4; paper, Section 2.2 and Appendix A).

``elbo``, the default, is log p(t) plus one bound for each kind whose existence is known:

.. math::
    \log p_{dec}(t \mid e, c) + \beta\,[\log p_{dec}(c) - \log p_{enc}(c \mid e, t)]
    + w\,[\log p_{dec}(e \mid c) + \log p_{enc}(e \mid t)], \qquad c \sim p_{enc}(c \mid e, t)

With β = w = 1 all but the last term is the evidence bound of log p_dec(t, e). With β < 1 it is no
longer a bound.

``tzk`` is the paper's ½(log p_enc + log p_dec) (Eq. 10), the missing code drawn from the encoder in
a share ``encoder_fraction`` of the batches and from p_dec(c) in the others (Section 4). By default
it is taken a kind at a time,

.. math::
    \log p(t) + \sum_i \tfrac12 [\log p_{enc}(t, k^i) + \log p_{dec}(t, k^i)],

and with ``product`` as Eq. 3 and 4 have it,

.. math::
    \tfrac12 [\log p(t) + \sum_i \log p_{enc}(k^i \mid t)]
    + \tfrac12 [\sum_i \log p(t \mid k^i)\, p(k^i) - (K - 1) \log p(t)],

which for K ≥ 2 is no bound, does not train the prior at K = 2, and for K > 2 rewards scaling z up
for ever if the t-flow trains (design, section 4, property 1).

A step's batch may be worked on in parts (other processes, gradient accumulation): each part takes a
run of its rows, but draws the noise of all of them and divides by how many there are in all. So the
parts' totals, and their gradients, add up to the whole batch's, however it is cut.

An unknown e contributes no term. In a hierarchy ``c.detach()`` enters everything of a child except
its discriminators p_enc(e_j∣c), which go on shaping c: a child's density of c would otherwise be
raised without bound by shrinking c (property 4).
"""

from .codes import FixedNoise
from .config import ObjectiveConfig, check_objective
from .terms import Existence, Part, Terms
from .total import objective

__all__ = [
    "Existence",
    "FixedNoise",
    "ObjectiveConfig",
    "Part",
    "Terms",
    "check_objective",
    "objective",
]
