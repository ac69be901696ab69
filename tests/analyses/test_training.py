"""Does training learn, and does a resumed run end in the same bits?"""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from analyses.models.checkpoint import Hyperparameters, load_network, read_tensors, save_network
from analyses.training.loop import Settings, Trainer, cool_down_start, learning_rate
from analyses.training.losses import segmentation_loss
from analyses.training.sample import Augmentation, random_batch
from analyses.training.template import load_template
from analyses.training.tissue import Tissue, TissueSettings
from mcaprobe.errors import InputError

TINY = TissueSettings(
    steps=6,
    batch=2,
    size=(48, 48),
    warm_up=2,
    sizes=Hyperparameters(filters=4, interpolation_filters=4),
)
CPU = torch.device("cpu")


def trainer_of(settings: TissueSettings) -> Trainer:
    return Trainer(settings, Tissue(settings, load_template()), CPU)


def trained(settings: TissueSettings, stop: int | None = None, prefetch: int = 0) -> Trainer:
    trainer = trainer_of(settings)
    for x, y in trainer.batches(prefetch):
        if trainer.step == stop:
            break
        trainer.train_step(x, y)
    return trainer


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_few_steps_reduce_the_loss() -> None:
    trainer = trainer_of(replace(TINY, steps=100))
    x, y = random_batch(load_template(), 0, 0, 2, (48, 48), TINY.augmentation)
    losses = [trainer.train_step(x, y) for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_resumed_run_ends_in_the_same_bits(tmp_path: Path, prefetch: int) -> None:
    whole = weights(trained(TINY, prefetch=prefetch))
    trained(TINY, stop=3).save_state(tmp_path / "run.state")
    again = trainer_of(TINY)
    again.load_state(tmp_path / "run.state")
    assert again.step == 3
    again.run(prefetch, 1e9, lambda: None, lambda step, loss: None)
    assert same(weights(again), whole)


def test_the_number_of_steps_may_change_before_the_rate_sinks(tmp_path: Path) -> None:
    longer = replace(TINY, steps=10)
    assert cool_down_start(TINY) == 4
    trained(TINY, stop=4).save_state(tmp_path / "run.state")
    again = trainer_of(longer)
    again.load_state(tmp_path / "run.state")
    again.run(0, 1e9, lambda: None, lambda step, loss: None)
    assert same(weights(again), weights(trained(longer)))
    trained(TINY, stop=5).save_state(tmp_path / "late.state")
    with pytest.raises(InputError, match=r"Expected steps = 10 in .*late.state to resume, got 6"):
        trainer_of(longer).load_state(tmp_path / "late.state")


def test_the_heads_get_harder_at_their_step() -> None:
    settings = replace(TINY, steps=3, harder_from=1)
    batches = [x for x, _ in trainer_of(settings).batches(0)]
    for step, augmentation in enumerate([Augmentation(), Augmentation.harder(), Augmentation.harder()]):
        assert torch.equal(batches[step], random_batch(load_template(), 0, step, 2, (48, 48), augmentation)[0])


def test_another_seed_is_another_network() -> None:
    a, b = (weights(trainer_of(replace(TINY, seed=seed))) for seed in (0, 1))
    assert not same(a, b)


def test_training_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    trained(TINY, stop=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_rate_rises_stays_and_sinks_to_almost_nothing() -> None:
    settings = Settings(steps=1000)
    rates = [learning_rate(step, settings) for step in range(1000)]
    assert rates[0] == pytest.approx(settings.learning_rate / 100)
    assert set(rates[99:700]) == {settings.learning_rate}
    assert all(a > b for a, b in pairwise(rates[699:]))
    assert 0 < rates[-1] < 0.01 * settings.learning_rate


def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_more() -> None:
    target = torch.tensor([[[0, 1], [2, 3]]])
    right = torch.nn.functional.one_hot(target, 4).permute(0, 3, 1, 2) * 50.0
    assert float(segmentation_loss(right, target)) == pytest.approx(0, abs=1e-5)
    assert float(segmentation_loss(right.roll(1, 1), target)) > 1


def test_resuming_with_other_settings_names_the_difference(tmp_path: Path) -> None:
    trained(TINY, stop=1).save_state(tmp_path / "run.state")
    with pytest.raises(InputError, match=r"Expected batch = 3 in .*run.state to resume, got 2"):
        trainer_of(replace(TINY, batch=3)).load_state(tmp_path / "run.state")


def test_a_truncated_state_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "run.state"
    trained(TINY, stop=1).save_state(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"Expected a safetensors file at .*run.state"):
        read_tensors(path)


def test_a_checkpoint_brings_back_sizes_weights_and_record(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    trainer = trainer_of(TINY)
    save_network(path, trainer.result(), TINY.sizes, {"seed": 3})
    network, record = load_network(path)
    assert same(dict(network.state_dict()), weights(trainer))
    assert record == {"seed": 3}
    assert not network.training
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]
