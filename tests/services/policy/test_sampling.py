import math

import pytest
import torch

from palate.models.logprobs import sampled_logprobs
from services.policy.sampling import RowNoise, Sampling, SeedNoise, draw, draw_each, keep_likeliest, row_seed

CPU = torch.device("cpu")


def sampling(temperature=1.0, top_k=0, top_p=1.0):
    return Sampling(temperature, top_k, top_p, max_new_tokens=1)


def some_logits(rows, vocab, seed=0):
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 2


def noise_of(*seeds, vocab):
    noise = RowNoise(vocab, CPU)
    noise.add([SeedNoise(seed) for seed in seeds])
    return noise


def kept(logits, params):
    return [set(torch.nonzero(row > -torch.inf).flatten().tolist()) for row in keep_likeliest(logits, params)]


def test_seeds_are_the_published_splitmix64_sequence():
    # The first outputs of SplitMix64 started at 0, as its authors' reference code prints them.
    assert row_seed(0, 0) == _splitmix_reference(_splitmix_reference(0))
    assert _splitmix_reference(0) == 0xE220A8397B1DCDAF


def _splitmix_reference(state):
    z = (state + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_neighbouring_seeds_and_completions_share_no_generator():
    seeds = {row_seed(seed, index) for seed in (*range(200), 2**64 - 1) for index in range(20)}
    assert len(seeds) == 201 * 20
    assert len({seed % 2**32 for seed in seeds}) > 201 * 20 - 10  # torch seeds its CPU generator with 32 bits


@pytest.mark.parametrize("vocab", [7, 512, 20_000])
def test_a_row_draws_the_same_noise_whatever_stands_beside_it(vocab):
    alone, among, elsewhere = noise_of(5, vocab=vocab), noise_of(1, 2, 5, 9, vocab=vocab), noise_of(8, vocab=vocab)
    for step in range(40):
        if step == 3:
            among.keep([0, 2])
        if step == 5:
            among.add([SeedNoise(6)])  # which begins when the others are amid their blocks
        row = 2 if step < 3 else 1
        drawn = among.next() if step < 9 else elsewhere.next()
        assert torch.equal(drawn[row], alone.next()[0])
        if step == 8:  # it moves to where another row is at another step
            elsewhere.next()
            elsewhere.add([SeedNoise(5, 9, among.state(1))])
            row = 1


@pytest.mark.parametrize("vocab", [7, 512, 20_000])
@pytest.mark.parametrize("used", [1, 31, 32, 33, 64])
def test_the_noise_of_a_seed_goes_on_after_any_number_of_steps(vocab, used):
    whole, rest = noise_of(5, vocab=vocab), noise_of(8, vocab=vocab)
    for _ in range(used):
        whole.next()
    rest.next()
    rest.add([SeedNoise(5, used)])
    for _ in range(40):
        assert torch.equal(rest.next()[1], whole.next()[0])


@pytest.mark.parametrize("vocab", [7, 512, 20_000])
@pytest.mark.parametrize("ahead", [0, 1])
def test_noise_that_has_come_further_goes_on_from_where_it_is_wanted(vocab, ahead):
    for used in range(66):
        noise, whole, other = noise_of(5, vocab=vocab), noise_of(5, vocab=vocab), noise_of(8, vocab=vocab)
        for _ in range(used + ahead):
            noise.next()
        kept = noise.state(0)
        other.add([SeedNoise(5, used, kept)])
        assert other._generators[1] is kept.generator  # not drawn anew
        for _ in range(used):
            whole.next()
        for _ in range(34):
            assert torch.equal(other.next()[1], whole.next()[0])


def test_noise_that_broke_off_amid_a_block_is_drawn_anew():
    noise, whole = noise_of(5, 6, vocab=7), noise_of(6, vocab=7)
    for _ in range(32):
        noise.next()
        whole.next()
    noise._generators[1] = "broken"
    with pytest.raises(TypeError):
        noise.next()
    rest = noise_of(8, vocab=7)
    rest.add([SeedNoise(6, 32, noise.state(1))])
    assert torch.equal(rest.next()[1], whole.next()[0])


def test_rows_that_draw_in_different_ways_draw_as_they_would_alone():
    logits, noise = some_logits(5, 50), noise_of(*range(5), vocab=50).next()
    ways = [sampling(), sampling(0.5, top_k=3), sampling(), sampling(2.0, top_p=0.5), sampling(0.5, top_k=3)]
    tokens, logprobs = draw_each(logits, noise, ways)
    for row, way in enumerate(ways):
        token, logprob = draw(logits[row : row + 1], noise[row : row + 1], way)
        assert (tokens[row], logprobs[row]) == (token[0], logprob[0])


def test_noise_is_gumbel():
    noise = noise_of(0, vocab=5000)
    values = torch.cat([noise.next()[0] for _ in range(20)])
    assert values.isfinite().all()
    assert values.mean().item() == pytest.approx(0.5772, abs=0.02)  # Euler-Mascheroni
    assert values.var().item() == pytest.approx(math.pi**2 / 6, abs=0.05)


@pytest.mark.parametrize("params", [sampling(), sampling(0.5), sampling(1.7, top_k=4), sampling(1.0, top_p=0.8)])
def test_tokens_are_drawn_from_the_distribution_their_logprobs_name(params):
    logits = some_logits(1, 8).expand(4000, -1)
    noise = noise_of(*(row_seed(3, row) for row in range(4000)), vocab=8)
    tokens, logprobs = draw(logits, noise.next(), params)
    probabilities = (keep_likeliest(logits[:1], params)[0] / params.temperature).softmax(-1)
    assert torch.allclose(logprobs.exp(), probabilities[tokens], atol=1e-6)
    counts = torch.bincount(tokens, minlength=8)
    assert counts[probabilities == 0].sum() == 0
    deviation = (counts - 4000 * probabilities) / (4000 * probabilities * (1 - probabilities)).sqrt().clamp(min=1)
    assert deviation.abs().max().item() < 4


def test_logprobs_are_the_shared_function_to_the_bit():
    logits, noise = some_logits(64, 300), noise_of(*range(64), vocab=300)
    tokens, logprobs = draw(logits, noise.next(), sampling(0.7))
    assert torch.equal(logprobs, sampled_logprobs(logits, tokens, 0.7))


def test_top_k_keeps_exactly_k_even_among_equals():
    assert kept(torch.tensor([[1.0, 1.0, 1.0, 0.0]]), sampling(top_k=2)) == [{0, 1}]
    logits = some_logits(3, 50)
    best = [set(row.topk(7).indices.tolist()) for row in logits]
    assert kept(logits, sampling(top_k=7)) == best


def test_top_p_keeps_the_smallest_set_that_reaches_the_mass():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for top_p, expected in ((0.4, {0}), (0.51, {0, 1}), (0.79, {0, 1}), (0.81, {0, 1, 2}), (1.0, {0, 1, 2, 3})):
        assert kept(logits, sampling(top_p=top_p)) == [expected]
    assert kept(logits, sampling(top_p=1e-9)) == [{0}]


def test_top_p_counts_the_mass_at_the_temperature_and_after_top_k():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert kept(logits, sampling(0.25, top_p=0.8)) == [{0}]  # p^4 renormalised: 0.88 for the first
    assert kept(logits, sampling(top_k=2, top_p=0.61)) == [{0}]  # of two: 0.625 and 0.375


def test_nothing_is_dropped_where_nothing_is_asked():
    logits = some_logits(2, 9)
    assert keep_likeliest(logits, sampling(top_k=9)) is logits
    assert keep_likeliest(logits, sampling()) is logits
