"""The linear probe: what it learns, and that neither company nor place changes what a head becomes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from probes.benchmarks import open_benchmark
from probes.data.pairs import PairConfig, PairSet, choose_pairs
from probes.encoders.features import FeatureMaps
from probes.matching.linear import LinearConfig, LinearProbe, train_linear_heads
from probes.metrics.correspondence import patch_of
from tests.probes.truth import noise_maps, true_maps

CPU = torch.device("cpu")
QUICK = LinearConfig(steps=40, pairs=8, queries=32, width=32)
SHORT = replace(QUICK, steps=8)


@pytest.fixture(scope="module")
def chosen(rendered: Path) -> PairSet:
    return choose_pairs("d", open_benchmark(str(rendered)).train, PairConfig(size=64, pairs=20))


def mixed(maps: FeatureMaps, count: int, gain: float = 1.0) -> FeatureMaps:
    """True features drowned in the same number of loud channels that know nothing, under an affine map."""
    noise = noise_maps(count, maps.grid, maps.tokens([0]).shape[-1] // 4)
    both = torch.cat([maps.tokens(range(count)), 0.2 * noise.tokens(range(count))], dim=-1)
    return FeatureMaps([(gain * both[i] + 3).unflatten(0, maps.grid).numpy() for i in range(count)])


def hits(probe: LinearProbe, maps: FeatureMaps, chosen: PairSet) -> float:
    found = []
    for pair in chosen.pairs:
        a, b = probe(maps.tokens([pair.a, pair.b]))
        asked, truth = (patch_of(points, *maps.grid, 64) for points in (pair.queries, pair.targets))
        found.append(((a[asked] @ b.T).argmax(dim=1).numpy() == truth).mean())
    return float(np.mean(found))


def train(maps: FeatureMaps, chosen: PairSet, config: LinearConfig = SHORT, seed: int = 0) -> LinearProbe:
    return train_linear_heads([maps], chosen.pairs, size=64, seed=seed, config=config, device=CPU)[0]


def test_it_learns_to_hear_what_matches(chosen: PairSet) -> None:
    maps = mixed(true_maps(chosen.frames, (8, 8)), len(chosen.frames))
    untrained = train(maps, chosen, replace(QUICK, steps=1, lr=1e-9))
    assert hits(train(maps, chosen, QUICK), maps, chosen) > hits(untrained, maps, chosen) + 0.15


def test_heads_trained_together_are_the_heads_trained_alone(chosen: PairSet) -> None:
    count = len(chosen.frames)
    variants = [
        true_maps(chosen.frames, (8, 8)),
        noise_maps(count, (4, 4), 24),
        noise_maps(count, (8, 8), 512),
    ]
    together = train_linear_heads(variants, chosen.pairs, size=64, seed=3, config=SHORT, device=CPU)
    for maps, head in zip(variants, together, strict=True):
        alone = train(maps, chosen, seed=3)
        torch.testing.assert_close(head(maps.tokens([0])), alone(maps.tokens([0])), atol=1e-4, rtol=0)


def test_channels_of_any_scale_train_alike(chosen: PairSet) -> None:
    count = len(chosen.frames)
    true = true_maps(chosen.frames, (8, 8))
    quiet, loud = mixed(true, count), mixed(true, count, gain=100.0)
    torch.testing.assert_close(
        train(quiet, chosen)(quiet.tokens([0])), train(loud, chosen)(loud.tokens([0])), atol=1e-2, rtol=0
    )


def test_images_of_no_training_pair_change_nothing(chosen: PairSet) -> None:
    maps = true_maps(chosen.frames, (8, 8))
    more = FeatureMaps.joined([maps, noise_maps(3, (8, 8), maps.tokens([0]).shape[-1])])
    torch.testing.assert_close(train(maps, chosen)(maps.tokens([0])), train(more, chosen)(maps.tokens([0])))


def test_the_seed_is_all_that_is_drawn_from_and_the_global_generator_stays(chosen: PairSet) -> None:
    maps = true_maps(chosen.frames, (8, 8))
    state = torch.random.get_rng_state()
    first = train(maps, chosen)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.rand(3)
    assert torch.equal(first.layer.weight, train(maps, chosen).layer.weight)
    assert not torch.equal(first.layer.weight, train(maps, chosen, seed=1).layer.weight)


def test_a_learned_temperature_moves_and_a_fixed_one_does_not(chosen: PairSet) -> None:
    maps = true_maps(chosen.frames, (8, 8))
    learned = train(maps, chosen, replace(QUICK, learn_temperature=True))
    assert 0 < learned.temperature != 0.1
    assert abs(learned.temperature - 0.1) > 1e-3
    assert train(maps, chosen).temperature == 0.1


def test_norms_are_what_they_say(chosen: PairSet) -> None:
    maps = true_maps(chosen.frames, (8, 8))
    tokens = maps.tokens([0])
    layer = train(maps, chosen, replace(SHORT, norm="layer"))
    torch.testing.assert_close(layer(tokens), layer(5 * tokens + 2), atol=1e-3, rtol=0)
    none = train(maps, chosen, replace(SHORT, steps=1, lr=1e-12, norm="none"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = torch.nn.Linear(tokens.shape[-1], 32)
    torch.testing.assert_close(none(tokens), F.normalize(fresh(tokens), dim=-1))


def test_a_channel_that_never_moves_is_silent(chosen: PairSet) -> None:
    true = true_maps(chosen.frames, (8, 8)).tokens(range(len(chosen.frames)))
    still = torch.cat([true, torch.full_like(true[..., :1], 1e6)], dim=-1)
    maps = FeatureMaps([found.unflatten(0, (8, 8)).numpy() for found in still])
    probe = train(maps, chosen, SHORT)
    assert probe.layer.weight[:, -1].abs().max() == 0
