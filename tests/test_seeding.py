"""Equal seeds and places give equal values, whatever others draw meanwhile."""

from __future__ import annotations

import asyncio
import copy
import pickle
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagehand_testdata import seeding
from stagehand_testdata.seeding import SEED_LIMIT, DelegatingRandom, drawing_from, generator, number

seeds = st.integers(0, SEED_LIMIT - 1)


@given(st.text())
def test_a_seed_from_a_test_id_is_one_that_the_ledger_takes(test_id: str) -> None:
    seed = seeding.seed_from_test_id(test_id)
    assert 0 <= seed < SEED_LIMIT
    assert seed == seeding.seed_from_test_id(test_id)


def test_seeds_are_the_same_on_every_machine_and_version() -> None:
    """A replay on another day must give the same values: these are written down, not computed."""
    assert seeding.seed_from_test_id("stagehand_test_1") == 5406631732296355
    assert generator(1, "a", 2).random() == 0.281841334205307
    assert number(1, "sequence", 0, limit=2_000_000) == 799047


def test_javascript_holds_every_seed_exactly() -> None:
    assert int(float(SEED_LIMIT - 1)) == SEED_LIMIT - 1
    assert SEED_LIMIT == 2**53


@given(seeds, st.lists(st.integers() | st.text(), max_size=3))
def test_equal_places_give_equal_values(seed: int, path: list[object]) -> None:
    first, second = generator(seed, *path), generator(seed, *path)
    assert [first.random() for _ in range(5)] == [second.random() for _ in range(5)]


def test_other_places_give_other_values() -> None:
    places = [
        (1,),
        (2,),
        (1, "a"),
        (1, "b"),
        (1, "a", 1),
        (1, "a", 11),
        (1, "a1", 1),
        (11, "a", 1),
        (1, "a", "1", ""),
    ]
    assert len({generator(*place).random() for place in places}) == len(places)


@given(seeds, st.text(), st.integers(1, 2**40))
def test_a_number_is_below_its_limit(seed: int, place: str, limit: int) -> None:
    found = number(seed, place, limit=limit)
    assert 0 <= found < limit
    assert found == number(seed, place, limit=limit)


def test_numbers_are_spread() -> None:
    found = {number(seed, "sequence", limit=2_000_000) for seed in range(1000)}
    assert len(found) > 990
    assert max(found) > 1_900_000


# --- the generator that stands in for a shared one -------------------------------------------------------


@pytest.fixture
def shared() -> DelegatingRandom:
    return DelegatingRandom(random.Random(5))


def draw(source: random.Random) -> list[object]:
    """With every kind of draw that Faker and factory_boy make."""
    return [
        source.random(),
        source.randint(1, 10**6),
        source.choice("abcdef"),
        source.choices("abcdef", k=3),
        source.sample(range(100), 3),
        source.uniform(1, 2),
        source.gauss(0, 1),
        source.gauss(0, 1),
        source.normalvariate(0, 1),
        source.triangular(),
        source.getrandbits(64),
        source.randbytes(4),
        source.randrange(5, 500, 5),
    ]


def test_outside_a_call_it_is_the_generator_that_it_stands_for(shared: DelegatingRandom) -> None:
    assert draw(shared) == draw(random.Random(5))


def test_within_a_call_it_is_the_calls_own(shared: DelegatingRandom) -> None:
    with drawing_from(random.Random(9)):
        assert draw(shared) == draw(random.Random(9))
    assert draw(shared) == draw(random.Random(5))


def test_a_call_within_a_call_gives_the_outer_one_back(shared: DelegatingRandom) -> None:
    outer = random.Random(1)
    expected = random.Random(1)
    with drawing_from(outer):
        assert shared.random() == expected.random()
        with drawing_from(random.Random(2)):
            shared.random()
        assert shared.random() == expected.random()


def test_an_exception_gives_it_back(shared: DelegatingRandom) -> None:
    with pytest.raises(ValueError, match="x"), drawing_from(random.Random(1)):
        raise ValueError("x")
    assert shared.random() == random.Random(5).random()


def test_half_a_pair_of_gauss_is_not_carried_into_a_call(shared: DelegatingRandom) -> None:
    shared.gauss(0, 1)
    with drawing_from(random.Random(9)):
        assert shared.gauss(0, 1) == random.Random(9).gauss(0, 1)


def test_seeding_it_seeds_the_hosts_own_and_not_the_calls(shared: DelegatingRandom) -> None:
    with drawing_from(random.Random(9)):
        shared.seed(3)
        assert shared.random() == random.Random(9).random()
    assert shared.random() == random.Random(3).random()


def test_its_state_is_the_hosts_own(shared: DelegatingRandom) -> None:
    state = shared.getstate()
    assert state == random.Random(5).getstate()
    with drawing_from(random.Random(9)):
        shared.random()
        assert shared.getstate() == state
    shared.random()
    shared.setstate(state)
    assert shared.random() == random.Random(5).random()


def test_threads_draw_from_generators_of_their_own(shared: DelegatingRandom) -> None:
    def work(seed: int) -> list[float]:
        with drawing_from(random.Random(seed)):
            return [shared.random() for _ in range(2000)]

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(work, [seed % 4 for seed in range(32)]))
    assert found == [
        [source.random() for _ in range(2000)] for source in (random.Random(n % 4) for n in range(32))
    ]


def test_tasks_draw_from_generators_of_their_own(shared: DelegatingRandom) -> None:
    async def work(seed: int) -> list[float]:
        found = []
        with drawing_from(random.Random(seed)):
            for _ in range(20):
                found.append(shared.random())
                await asyncio.sleep(0)
        return found

    async def main() -> list[list[float]]:
        return await asyncio.gather(*(work(seed % 2) for seed in range(10)))

    found = asyncio.run(main())
    assert found[::2] == [found[0]] * 5
    source = random.Random(0)
    assert found[0] == [source.random() for _ in range(20)]


# --- standing in place -----------------------------------------------------------------------------------


def test_a_generator_that_others_hold_delegates_from_then_on() -> None:
    held = random.Random(5)
    held.state_set = True  # type: ignore[attr-defined]
    seeding.delegate(held)
    assert isinstance(held, DelegatingRandom)
    assert held.state_set
    with drawing_from(random.Random(9)):
        assert draw(held) == draw(random.Random(9))
    assert draw(held) == draw(random.Random(5))


def test_delegating_twice_is_delegating_once() -> None:
    held = random.Random(5)
    seeding.delegate(held)
    fallback = held.fallback  # type: ignore[attr-defined]
    seeding.delegate(held)
    assert held.fallback is fallback  # type: ignore[attr-defined]


def test_a_generator_of_another_kind_is_left_alone() -> None:
    held = random.SystemRandom()
    seeding.delegate(held)
    assert type(held) is random.SystemRandom


def test_it_can_be_copied(shared: DelegatingRandom) -> None:
    shared.random()
    for twin in (copy.copy(shared), copy.deepcopy(shared), pickle.loads(pickle.dumps(shared))):
        assert twin.getstate() == shared.getstate()
