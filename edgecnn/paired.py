"""Statistics of right and wrong answers: Wilson's interval of a share, McNemar's exact test of two networks.

Two networks that see the same images differ only where one is right and the other wrong. If neither is better, each of
these b + c images is a fair coin; the p value is the chance of a split at least as uneven as the one found.
"""

from dataclasses import dataclass
from math import sqrt

Z_95 = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A count out of a total, with Wilson's 95 % interval.

    Attributes:
        count: How many.
        total: Out of how many, at least 1.
        value: count / total.
        low: Lower end of the interval.
        high: Upper end of it.
    """

    count: int
    total: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class McNemar:
    """How two networks differ on the same images.

    Attributes:
        only_first: Images that the first alone has right (b).
        only_second: Images that the second alone has right (c).
        p_value: Two-sided, exact.
    """

    only_first: int
    only_second: int
    p_value: float


def wilson(count: int, total: int) -> Share:
    """Return a share with its 95 % interval, which stays inside 0..1 and says something at 0 and at 1 too.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.

    >>> share = wilson(81, 263)
    >>> round(share.low, 4), round(share.high, 4)
    (0.2553, 0.3662)
    """
    value, z2 = count / total, Z_95**2
    centre = (value + z2 / (2 * total)) / (1 + z2 / total)
    reach = Z_95 / (1 + z2 / total) * sqrt(value * (1 - value) / total + z2 / (4 * total**2))
    return Share(
        count=count,
        total=total,
        value=value,
        low=0.0 if count == 0 else centre - reach,
        high=1.0 if count == total else centre + reach,
    )


def mcnemar(only_first: int, only_second: int) -> McNemar:
    """Return McNemar's exact test: the binomial distribution with p = 1/2, in whole numbers.

    Source: McNemar, Note on the sampling error of the difference between correlated proportions or percentages,
    Psychometrika 12, 1947.

    >>> mcnemar(1, 8).p_value
    0.0390625
    """
    trials, fewer = only_first + only_second, min(only_first, only_second)
    ways = term = 1
    for k in range(fewer):
        term = term * (trials - k) // (k + 1)
        ways += term
    return McNemar(only_first=only_first, only_second=only_second, p_value=min(1.0, 2 * ways / 2**trials))
