import dataclasses

import pytest
import torch
from tiny import MLP, run

from hjbridge.training.evaluate import unfinished
from hjbridge.training.watch import watch


def test_every_stop_shows_the_weights_of_that_step(data, tmp_path):
    seen = [(model.header["step"], model.state_dict()) for model in watch(MLP, [4, 12], seed=3, data=data)]
    assert [step for step, _ in seen] == [4, 12]
    recipe = dataclasses.replace(MLP, seed=3, steps=12)
    alone = unfinished(run(recipe, data, tmp_path / "x", stop_after=4)).state_dict()
    assert all(torch.equal(seen[0][1][name], alone[name]) for name in alone)
    assert any(not torch.equal(seen[0][1][name], seen[1][1][name]) for name in alone)


@pytest.mark.parametrize("stops", [[], [0, 4], [8, 4], [4, 4]])
def test_stops_must_ascend(stops, data):
    with pytest.raises(ValueError, match="stops must be positive and ascending"):
        next(watch(MLP, stops, data=data))


def test_an_unknown_recipe_is_named(data):
    with pytest.raises(ValueError, match="recipe must be one of digits, .*, got 'letters'"):
        next(watch("letters", [1], data=data))
