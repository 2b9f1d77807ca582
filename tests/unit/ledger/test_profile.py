"""Profiles and the set-up of a notebook's process."""

import random

import matplotlib
import numpy
import pytest
import torch

from hjbridge.ledger import Profile, session, setup


def test_pick_takes_the_setting_of_the_profile():
    sizes = {"smoke": 1, "book": 2, "full": 3, "paper": 4}
    assert [Profile(name).pick(**sizes) for name in sizes] == [1, 2, 3, 4]


def test_pick_falls_back_to_the_next_smaller_profile():
    assert Profile("full").pick(smoke=1, book=2) == 2
    assert Profile("paper").pick(smoke=1, book=2, full=3) == 3
    assert Profile("paper").pick(smoke=1, book=2) == 2
    assert Profile("full").pick(smoke=1, book=2, full=0) == 0


def test_an_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="profile must be one of smoke, book, full, paper, got 'boook'"):
        Profile("boook")


@pytest.mark.parametrize("seed", [-1, 1.5, True, "0", 2**32])
def test_a_bad_seed_is_refused(repository, seed):
    with pytest.raises(ValueError, match="seed must be an integer from 0"):
        setup(seed)


def test_a_bad_chapter_is_refused(begin):
    with pytest.raises(ValueError, match="chapter must be a number such as 5, '05' or 'ch05', got 'five'"):
        begin(chapter="five")


@pytest.fixture
def process_restored():
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with matplotlib.rc_context():
        yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def test_setup_prepares_the_process(repository, process_restored):
    torch.use_deterministic_algorithms(False)
    matplotlib.rcdefaults()
    draws = []
    for seed in (0, 0, 2**32 - 1):
        profile = setup(seed, "smoke", chapter=5)
        draws.append((random.random(), numpy.random.rand(), torch.rand(()).item()))  # noqa: NPY002
    assert profile == Profile("smoke")
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert (matplotlib.rcParams["font.size"], matplotlib.rcParams["axes.spines.top"]) == (13, False)
    assert draws[0] == draws[1]
    assert all(a != b for a, b in zip(draws[1], draws[2], strict=True))
    opened = session.current()
    assert opened is not None and (opened.chapter, opened.seed) == ("05", 2**32 - 1)
