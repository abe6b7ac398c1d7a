"""The small public class against a model that looks at every server with exact fractions."""

from dataclasses import dataclass, field
from fractions import Fraction

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, consumes, invariant, multiple, rule

from tailrace import LoadBalancer

SERVERS = [f"s{number}" for number in range(8)]
CAPACITIES = st.one_of(st.integers(1, 5), st.integers(1, 1000))
MEMORIES = st.one_of(st.sampled_from([16, 40, 79, 80, 81, 141]), st.integers(1, 10**6))
TOKENS = st.sampled_from([1, 4095, 4096, 4097, 100_000])


@dataclass
class Server:
    capacity: int
    memory: int
    added: int
    draining: bool = False
    active: list[str] = field(default_factory=list)

    def order(self) -> tuple[Fraction, Fraction, int, int]:
        ratio = Fraction(len(self.active), self.capacity)
        return ratio, -self.memory * (1 - ratio), -self.capacity, self.added


class BalancerMachine(RuleBasedStateMachine):
    requests: Bundle[str] = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.balancer = LoadBalancer()
        self.model: dict[str, Server] = {}
        self.count = 0

    @rule(server=st.sampled_from(SERVERS), capacity=CAPACITIES, memory=MEMORIES)
    def add(self, server: str, capacity: int, memory: int) -> None:
        if server in self.model:
            with pytest.raises(ValueError, match=server):
                self.balancer.add_server(server, capacity, memory)
            return
        self.balancer.add_server(server, capacity, memory)
        self.count += 1
        self.model[server] = Server(capacity, memory, self.count)

    @rule(server=st.sampled_from(SERVERS))
    def remove(self, server: str) -> None:
        if server not in self.model:
            with pytest.raises(KeyError, match=server):
                self.balancer.remove_server(server)
            return
        self.balancer.remove_server(server)
        self.model[server].draining = True
        self._forget(server)

    @rule(target=requests, tokens=st.lists(TOKENS, min_size=1, max_size=12))
    def route(self, tokens: list[int]) -> MultipleResults[str]:
        return multiple(*(request for each in tokens if (request := self._route(each)) is not None))

    def _route(self, tokens: int) -> str | None:
        self.count += 1
        request = f"r{self.count}"
        able = [
            (server.order(), name)
            for name, server in self.model.items()
            if not server.draining and len(server.active) < server.capacity and (tokens <= 4096 or server.memory >= 80)
        ]
        if not able:
            with pytest.raises(RuntimeError, match=request):
                self.balancer.route_request(request, tokens)
            return None
        chosen = min(able)[1]
        assert self.balancer.route_request(request, tokens) == chosen
        self.model[chosen].active.append(request)
        return request

    @rule(request=requests)
    def route_again(self, request: str) -> None:
        if any(request in server.active for server in self.model.values()):
            with pytest.raises(ValueError, match=request):
                self.balancer.route_request(request, 1)

    @rule(request=consumes(requests))
    def complete(self, request: str) -> None:
        self.balancer.complete_request(request)
        name = next(name for name, server in self.model.items() if request in server.active)
        self.model[name].active.remove(request)
        self._forget(name)
        with pytest.raises(KeyError, match=request):
            self.balancer.complete_request(request)

    def _forget(self, name: str) -> None:
        if self.model[name].draining and not self.model[name].active:
            del self.model[name]

    @invariant()
    def stats_agree(self) -> None:
        assert self.balancer.get_server_stats() == {
            name: {
                "capacity": server.capacity,
                "current_load": len(server.active),
                "gpu_memory_gb": server.memory,
                "load_ratio": len(server.active) / server.capacity,
                "is_draining": server.draining,
                "active_requests": server.active,
            }
            for name, server in self.model.items()
        }


TestBalancer = BalancerMachine.TestCase
TestBalancer.settings = settings(max_examples=60, stateful_step_count=40)
