"""`bench`: figures that fit together, and a sentence that names the limit."""

import dataclasses
import json
from collections.abc import Callable

import pytest

from shards.__main__ import main
from shards.bench import Speed, verdict
from shards.reader import Dataset

SPEED = Speed(
    frame_bytes=70e3,
    pixels=512 * 384,
    size=224,
    read=20000.0,
    decode=1200.0,
    load=900.0,
    load_to_decode=0.75,
    workers=8,
    load_workers=6800.0,
    cores=8,
)


def test_figures_are_measured_and_fit_together(
    ramps: Callable[..., Dataset], capsys: pytest.CaptureFixture
) -> None:
    dataset = ramps([12, 20, 14], size=(96, 128))
    assert (
        main(["bench", str(dataset.root), "--seconds", "0.4", "--workers", "1", "--size", "48", "--json"])
        == 0
    )
    figures = json.loads(capsys.readouterr().out)
    assert figures["pixels"] == 96 * 128
    assert figures["read"] > figures["load"] > 0
    assert figures["decode"] > 0
    assert figures["scaling"] == pytest.approx(figures["load_workers"] / figures["load"])
    assert main(["bench", str(dataset.root), "--seconds", "0.2", "--workers", "1"]) == 0
    table = capsys.readouterr().out
    for word in ("reading", "decoding alone", "loading, 1 process", "loading, 1 worker", "of decoding alone"):
        assert word in table


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"read": 1000.0}, "Reading is the limit"),
        ({"workers": 4, "load_workers": 3500.0}, "use more workers"),
        ({"load_workers": 3000.0}, "cores are shared or busy"),
        ({"pixels": 1600.0 * 1200}, "smaller --short-side"),
        ({}, "only more cores or smaller pictures"),
    ],
)
def test_the_verdict_names_the_limit(change: dict, said: str) -> None:
    sentence = verdict(dataclasses.replace(SPEED, **change))
    assert said in sentence
    assert "\n" not in sentence


def test_bad_options_are_one_sentence(ramps: Callable[..., Dataset], capsys: pytest.CaptureFixture) -> None:
    dataset = str(ramps([12]).root)
    for options in (["--seconds", "0"], ["--workers", "0"], ["--size", "-1"]):
        assert main(["bench", dataset, *options]) == 2
        assert options[0] in capsys.readouterr().err
    assert main(["bench", dataset + "/none"]) == 2
