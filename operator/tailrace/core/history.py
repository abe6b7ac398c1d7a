"""How long requests take, learnt from similar ones: by model (a pool is one) and by their lengths."""

from __future__ import annotations

from tailrace.core.learn import Mean, Ratio
from tailrace.core.meter import KEEP, PRIOR_TOKENS, SMOOTHING, Notes, Work

SECONDS_PER_TOKEN = 0.001
"""Before anything was seen: only the order of requests by tokens matters then."""

LEAST_SECONDS = 0.001
"""Nothing is faster: speeds stay finite, however a clock stands."""


class History(Notes):
    """Seconds for each token, by bucket: prompts and answers of the same power of two are similar. 21 x 21 at most.

    A bucket that has seen nothing counts as all requests together. What a request took is divided by how slow its
    endpoint is, so that a bucket describes requests and not who served them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._buckets: dict[tuple[int, int], Mean] = {}
        self._per_token = Ratio(KEEP, SECONDS_PER_TOKEN, PRIOR_TOKENS)

    def predict(self, prompt: int, output: int) -> float:
        """Return the seconds that a request of so many tokens takes at an endpoint of usual speed."""
        bucket = self._buckets.get(_bucket(prompt, output))
        if bucket is not None and bucket.value is not None:
            return bucket.value * (prompt + output)
        return self._per_token.value * (prompt + output)

    def completed(self, work: Work, took: float, now: float) -> None:
        """Learn from a request that has come to its end."""
        meter = work.endpoint.meter
        took = max(took, LEAST_SECONDS)
        usual = took / meter.slowness_at(now)
        bucket = self._buckets.setdefault(_bucket(work.prompt, work.output), Mean(SMOOTHING))
        bucket.see(usual / (work.prompt + work.output))
        self._per_token.see(usual, work.prompt + work.output)
        meter.took(took, max(work.seconds, LEAST_SECONDS), now)


def _bucket(prompt: int, output: int) -> tuple[int, int]:
    return min(prompt.bit_length(), 20), min(output.bit_length(), 20)
