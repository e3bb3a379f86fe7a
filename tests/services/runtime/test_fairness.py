from hypothesis import given
from hypothesis import strategies as st

from services.runtime.callers import current_caller, enter_call, origin
from services.runtime.fairness import Holdings, Served
from services.runtime.identity import Identity
from services.runtime.roles import Role


def test_idle_time_earns_no_credit_and_being_ahead_is_remembered():
    served = Served()
    served.charge("busy", 1000)
    served.charge("other", 600)
    served.level(["busy", "other"])
    assert served.of("new") == 600
    served.charge("other", 600)
    served.level(["busy", "other"])
    assert (served.of("busy"), served.of("other"), served.of("new")) == (1000, 1200, 1000)


def test_the_number_of_remembered_callers_is_bounded():
    served = Served()
    for number in range(20_000):
        served.charge(f"caller-{number}", number)
        served.level([f"caller-{number}", "first"])
    assert len(served._tokens) <= 4096


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40)), max_size=60))
def test_a_queue_is_never_overfull_and_keeps_room_for_those_who_have_less(demands: list[tuple[str, int]]):
    holdings, held = Holdings(160), {"a": 0, "b": 0, "c": 0}
    for caller, amount in demands:
        if holdings.excess(caller, amount) <= 0:
            held[caller] += amount
            holdings.change(caller, amount)
        else:
            callers = max(2, sum(value > 0 for value in held.values()) + (held[caller] == 0))
            over_share = held[caller] * callers > 160
            assert sum(held.values()) + amount > (140 if over_share else 160)
    assert holdings.total == sum(held.values()) <= 160


def test_a_flood_leaves_room_for_another_caller():
    holdings = Holdings(4096)
    while holdings.excess("flood", 1) <= 0:
        holdings.change("flood", 1)
    assert holdings.total == 4096 - 512
    assert holdings.excess("other", 512) <= 0
    assert holdings.excess("other", 513) == 1


def test_callers_are_identities_else_hosts_and_local_connections():
    assert origin("ipv4:10.0.0.7:51234") == origin("ipv4:10.0.0.7:51235") != origin("ipv4:10.0.0.8:51234")
    assert origin("ipv6:%5B2001:db8::1%5D:51234") == origin("ipv6:%5B2001:db8::1%5D:9")
    assert origin("ipv4:127.0.0.1:1") != origin("ipv4:127.0.0.1:2")
    assert origin("unix:") == "unix:"


async def test_a_call_knows_its_caller():
    assert current_caller() == ""
    enter_call(Identity("team", frozenset({Role.SCORER}), None, "team.pod", None), "ipv4:10.0.0.7:51234")
    assert current_caller() == "identity:team"
    enter_call(None, "ipv4:10.0.0.7:51234")
    assert current_caller() == "ipv4:10.0.0.7"
