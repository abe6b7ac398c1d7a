"""How fast and how large a simulated engine is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """Settings of an engine. Times are in seconds of the engine's own clock, sizes in tokens."""

    max_num_seqs: int = 32
    """Sequences that run at once; the others wait in order of arrival."""
    prefill_tokens_per_second: float = 8000.0
    """Speed at which uncached prompt tokens are computed, shared by all: one prompt after the other."""
    ttft_base: float = 0.030
    """Added to every TTFT; takes no prefill time from others."""
    itl: float = 0.020
    """Inter-token latency of a sequence that runs alone."""
    itl_growth: float = 0.01
    """Fraction by which each further running sequence lengthens the inter-token latency."""
    jitter: float = 0.05
    """Largest relative deviation of `ttft_base` and `itl`, drawn uniformly."""
    kv_tokens: int = 200_000
    """Tokens that fit in the KV cache; a sequence reserves its prompt and its longest answer."""
    prefix_cache_tokens: int = 200_000
    """Tokens that the prefix cache remembers; 0 turns it off."""
