import pytest

from services.reward.launch_cost import tokens_within


@pytest.mark.parametrize("tokens_a_second", [1e4, 1e5, 1e6])
def test_the_tokens_of_a_start_are_found_whatever_the_speed(tokens_a_second: float):
    start = 0.01
    found = tokens_within(start, lambda rows: start + rows * 512 / tokens_a_second, 512, 128)
    assert found == pytest.approx(start * tokens_a_second, rel=0.01)


def test_rows_are_doubled_only_until_they_show_what_they_cost():
    asked = []

    def seconds_of(rows: int) -> float:
        asked.append(rows)
        return 0.01 + 0.01 * rows

    assert tokens_within(0.01, seconds_of, 512, 128) == 512
    assert asked == [1, 2]


def test_a_card_that_never_takes_longer_is_believed_up_to_the_largest_pass():
    assert tokens_within(0.01, lambda rows: 0.01, 512, 20) == 16 * 512


def test_a_start_without_time_is_a_token():
    assert tokens_within(1e-9, lambda rows: 10.0, 512, 1) == 1
