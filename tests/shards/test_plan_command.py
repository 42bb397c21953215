"""`python -m shards plan`: what it counts is what the plan does, and what cannot be is one sentence."""

import json
from collections import Counter
from collections.abc import Callable

import pytest

from shards.__main__ import main
from shards.mixture import open_mixture
from shards.plan import DataConfig, Plan
from shards.reader import Dataset

Ramps = Callable[..., Dataset]


@pytest.fixture
def named(ramps: Ramps) -> list[str]:
    return [f"{ramps([20, 11, 18, 2], name='a').root}=3", f"{ramps([25, 8, 9], name='b').root}=1"]


OPTIONS = ["--images-per-lane", "12", "--views", "3", "5", "--lanes", "4", "--size", "32"]


def test_what_is_counted_is_what_the_plan_does(named: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *named, *OPTIONS, "--ranks", "2", "--json", "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    plan = Plan(open_mixture(named), DataConfig(images_per_lane=12, views=(3, 5), lanes=4, size=32))
    parts = [plan.lane_step(s, v) for s in range(plan.steps_per_epoch) for v in range(4)]
    views = Counter(n for part in parts for n in part.views.tolist())
    assert told["views"] == {str(size): views[size] for size in sorted(views)}
    assert told["steps_per_epoch"] == plan.steps_per_epoch
    assert told["images_per_epoch"] == 48 * plan.steps_per_epoch
    assert told["scenes_per_epoch"] == sum(views.values())
    assert told["skipped_chunks"] == 1
    scenes = Counter(int(chunk >= 4) for part in parts for chunk in part.chunks)
    for number, source in enumerate(told["sources"]):
        assert source["share_of_scenes"] == pytest.approx(scenes[number] / sum(scenes.values()))
        assert source["weight"] == (3, 1)[number]
    assert [load["lanes"] for load in told["loads"]] == [[0, 2], [1, 3]]
    for load in told["loads"]:
        assert load["images_per_step"] == 24
        mine = [p for p in parts if p.lane in load["lanes"]]
        assert load["view_pairs_per_step"] == sum((p.views**2).sum() for p in mine) / plan.steps_per_epoch


def test_it_reads_as_a_page(named: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *named, *OPTIONS]) == 0
    said = capsys.readouterr().out
    assert "images in 4 lanes" in said
    assert "skipped  1 chunk with fewer frames" in said
    assert "passed 1 times an epoch" in said
    assert "   0  4 lanes, 48 images, 12 scenes" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ranks", "3"], "3 ranks cannot share 4 lanes evenly: use one of 1, 2, 4 ranks"),
        (["--views", "30", "30", "--images-per-lane", "30"], "largest scene"),
        (["--drawing", "windw"], "did you mean 'window'"),
        (["--band-end", "0.2", "0.9"], "needs both band_end and band_steps"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    named: list[str], options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["plan", *named, *OPTIONS, *options])
    except SystemExit as stop:
        code = stop.code
    err = capsys.readouterr().err
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
