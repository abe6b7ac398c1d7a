import pytest

from tailrace.gate.settings import RouterName, parse_routers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tailrace.tailrace-system:9090", [("tailrace.tailrace-system", 9090)]),
        ("a:1, b:65535 ,", [("a", 1), ("b", 65535)]),
        ("[fd00::1]:9090", [("fd00::1", 9090)]),
    ],
)
def test_routers_are_hosts_and_ports(text: str, expected: list[tuple[str, int]]) -> None:
    assert parse_routers(text) == tuple(RouterName(*entry) for entry in expected)


@pytest.mark.parametrize(
    "text", ["a", "a:", ":9090", "a:0", "a:65536", "a:x", "fd00::1:9090", "a:9090,b", "a:٣", "[]:1"]
)
def test_an_entry_that_is_no_host_and_port_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"routers: .* is not host:port"):
        parse_routers(text)


@pytest.mark.parametrize("text", ["", " ", ","])
def test_at_least_one_router_is_needed(text: str) -> None:
    with pytest.raises(ValueError, match="at least one"):
        parse_routers(text)
