"""A training that is killed goes on where it was, and only the same one does."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.worlds import checkerboard as world
from training import next_item
from training.checkpoint import SAVES, Checkpoint
from training.model import Workplace
from training.models import hstu, sasrec

SMALL = {"embedding_size": 8, "max_history": 6, "epochs": 8, "min_steps": 1, "batch_size": 12}


class Killed(BaseException):
    """Stands for a process that ends at this very place."""


def weights(model) -> torch.Tensor:
    return torch.cat([values.flatten() for values in model.network.state_dict().values()])


@pytest.mark.parametrize("module", [sasrec, hstu], ids=["sasrec", "hstu"])
def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(tmp_path, monkeypatch, module):
    data, config, place = world.training_data(), module.Config(**SMALL), Workplace(1, tmp_path)
    whole = weights(module.fit(data, config, 1, Workplace(1, tmp_path / "undisturbed")))
    steps, loss = [], next_item.batch_loss

    def counted(*arguments):
        steps.append(1)
        if len(steps) == dies_at:
            raise Killed
        return loss(*arguments)

    dies_at = 0
    monkeypatch.setattr(next_item, "batch_loss", counted)
    module.fit(data, config, 2, place)
    needed = len(steps)
    assert needed >= config.epochs
    steps.clear()
    dies_at = needed * 2 // 3
    with pytest.raises(Killed):
        module.fit(data, config, 1, place)
    assert len(list(tmp_path.glob("checkpoints/*.pt"))) == 1
    steps.clear()
    dies_at = 0
    resumed = weights(module.fit(data, config, 1, place))
    assert 0 < len(steps) <= needed / 2, "it went on from the half"
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)
    assert not list(tmp_path.glob("**/*.pt")), "a training that is done leaves nothing"


def test_it_is_the_training_of_this_data_configuration_and_seed(tmp_path):
    data, config, place = world.training_data(), sasrec.Config(**SMALL), Workplace(1, tmp_path)
    other = replace(data, items=data.items[::-1].copy())
    paths = {
        Checkpoint.of(name, events, configured, seed, place).path
        for name, events, configured, seed in (
            ("sasrec", data, config, 1),
            ("hstu", data, config, 1),
            ("sasrec", other, config, 1),
            ("sasrec", data, config.model_copy(update={"dropout": 0.1}), 1),
            ("sasrec", data, config, 2),
        )
    }
    assert len(paths) == 5
    assert Checkpoint.of("sasrec", world.training_data(), sasrec.Config(**SMALL), 1, place).path in paths


def test_what_was_saved_last_comes_back(tmp_path):
    checkpoint = Checkpoint(tmp_path / "deep" / "one.pt")
    assert checkpoint.load() is None
    for epoch in (1, 2):
        checkpoint.save({"epoch": epoch, "network": {"w": torch.full((2,), float(epoch))}})
    state = checkpoint.load()
    assert (state["epoch"], state["network"]["w"].tolist()) == (2, [2.0, 2.0])
    assert [path.name for path in checkpoint.path.parent.iterdir()] == ["one.pt"]
    checkpoint.remove()
    checkpoint.remove()
    assert checkpoint.load() is None


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 half a file"])
def test_a_file_that_cannot_be_read_is_no_state(tmp_path, caplog, content):
    checkpoint = Checkpoint(tmp_path / "one.pt")
    checkpoint.path.write_bytes(content)
    assert checkpoint.load() is None
    assert "training from the start" in caplog.text


def test_a_file_that_would_run_code_is_no_state(tmp_path):
    checkpoint = Checkpoint(tmp_path / "one.pt")
    torch.save({"epoch": Killed("not a tensor")}, checkpoint.path)
    assert checkpoint.load() is None


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 7, 100])
def test_a_few_are_due_and_none_at_the_end(epochs):
    due = [epoch for epoch in range(epochs) if Checkpoint.is_due(epoch, epochs)]
    assert len(due) == min(SAVES, epochs) - 1
    assert epochs - 1 not in due
    assert (np.diff(due) > 0).all()


def test_a_kill_in_a_later_member_trains_no_earlier_one_again(tmp_path, monkeypatch):
    data, config = world.training_data(), sasrec.Config(**SMALL | {"members": 3})
    whole = weights(sasrec.fit(data, config, 1, Workplace(1, tmp_path / "undisturbed")))
    steps, loss, place = [], next_item.batch_loss, Workplace(1, tmp_path)

    def counted(*arguments):
        steps.append(1)
        if len(steps) == dies_at:
            raise Killed
        return loss(*arguments)

    dies_at = 0
    monkeypatch.setattr(next_item, "batch_loss", counted)
    sasrec.fit(data, config, 2, place)
    needed = len(steps)
    steps.clear()
    dies_at = needed * 3 // 4  # in the third
    with pytest.raises(Killed):
        sasrec.fit(data, config, 1, place)
    steps.clear()
    dies_at = 0
    torch.testing.assert_close(weights(sasrec.fit(data, config, 1, place)), whole, rtol=0, atol=0)
    assert len(steps) <= needed / 3, "two were done, and the third had been begun"
    assert not list(tmp_path.glob("**/*.pt"))
