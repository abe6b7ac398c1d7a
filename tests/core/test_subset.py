"""The endpoints that a gateway allows: nobody else is picked, whatever the strategy says."""

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.core.play import SHAPES, STEPS, Play
from tests.core.world import BOOT, MODEL, endpoint, pod, pool, refusal, router

from tailrace.core.model import Pick, RefusalCode, Request, Standing, Traits
from tailrace.core.pool import REFUSALS_BEFORE_SCAN
from tailrace.core.strategies import STRATEGIES


def allowing(*addresses: str, model: str = MODEL, tokens: int = 1) -> Request:
    return Request(model, tokens, traits=Traits(1), subset=frozenset(addresses))


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(SHAPES, STEPS, st.sets(st.integers(0, 7)))
def test_nobody_is_picked_whom_the_gateway_does_not_allow(
    strategy: str, shapes: list[tuple[int, int]], steps: list[tuple[str, int]], allowed: set[int]
) -> None:
    play = Play(shapes, strategy)
    request = allowing(*(f"e{number}:8000" for number in allowed))
    for what, number in steps:
        if what != "p":
            play.step(what, number)
            continue
        able = [each for each in play.able(1) if each.address in (request.subset or ())]
        chosen = play.pool.pick(1, request=request)
        assert (chosen in able) if able else chosen is None
        play.take(chosen)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_of_many_is_found_by_one_scan(strategy: str) -> None:
    many = [endpoint(f"e{n}", 4, 80, n) for n in range(3 * REFUSALS_BEFORE_SCAN)]
    made = pool(*many, strategy=strategy)
    assert made.pick(1, request=allowing("e150:8000")) is many[150]
    assert made.pick(1, request=allowing()) is None


def test_refusals_say_what_the_gateway_has_to_do_with_it() -> None:
    made = router(pod("a", capacity=1), pod("b"), pod("small", memory=24))
    assert refusal(made, request=allowing("9.9.9.9:1")).code is RefusalCode.NO_ENDPOINTS
    assert "that the gateway allows is ready" in refusal(made, request=allowing("9.9.9.9:1")).message
    assert refusal(made, request=allowing("small:8000", tokens=5000)).code is RefusalCode.NOT_QUALIFIED
    assert isinstance(made.acquire(allowing("a:8000"), BOOT), Pick)
    full = refusal(made, request=allowing("a:8000"))
    assert (full.code, full.message) == (
        RefusalCode.SATURATED,
        "every endpoint of the model 'llama' that the gateway allows is at capacity",
    )
    assert "gateway" not in refusal(router(), request=allowing("a:8000")).message


def test_an_explanation_names_the_gateway() -> None:
    made = router(pod("a"), pod("b"))
    found = {each.uid: each for each in made.explain(allowing("b:8000"), BOOT).candidates}
    assert found["b"].standing is Standing.PICKED
    assert found["a"].against == ("the gateway does not allow it",)


def test_a_subset_goes_before_where_an_adapter_is_loaded() -> None:
    first, second = endpoint("first"), endpoint("second", added=1)
    for each in (first, second):
        each.adapters = frozenset({"x"})
    made = pool(first, second)
    made._loaded._note(first, frozenset({"x"}))
    assert made.pick(1, "x", request=allowing("second:8000")) is second
