"""The door to all benchmarks, and that every reader speaks of itself."""

from pathlib import Path

import pytest

from probes import benchmarks
from probes.errors import ProbeError


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, str, bool]]:
    """What readers are asked to open; none opens anything."""
    asked: list[tuple[Path, str, bool]] = []

    class Reader:
        advice = "advice"

        @staticmethod
        def open(root: Path, spec: str, allow_missing: bool) -> str:
            asked.append((root, spec, allow_missing))
            return "benchmark"

    monkeypatch.setattr(benchmarks, "reader", lambda name: Reader)
    benchmarks.open_benchmark.cache_clear()
    return asked


@pytest.fixture(autouse=True)
def _forget() -> None:
    benchmarks.open_benchmark.cache_clear()


@pytest.mark.parametrize("name", benchmarks.NAMES)
def test_every_reader_says_what_it_reads_and_where_it_comes_from(name: str) -> None:
    found = benchmarks.reader(name)
    assert found.title and found.where and found.layout and callable(found.open)
    assert "\n" not in found.advice


def test_a_name_and_a_path_open_that_reader(tmp_path: Path, opened: list) -> None:
    assert benchmarks.open_benchmark(f"hpatches:{tmp_path}", allow_missing=True) == "benchmark"
    assert opened == [(tmp_path, f"hpatches:{tmp_path}", True)]


def test_a_folder_alone_is_a_shard_folder(tmp_path: Path, opened: list) -> None:
    benchmarks.open_benchmark(str(tmp_path))
    assert opened == [(tmp_path, str(tmp_path), False)]


def test_what_was_opened_is_not_opened_again(tmp_path: Path, opened: list) -> None:
    for _ in range(2):
        benchmarks.open_benchmark(f"hpatches:{tmp_path}")
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hpatchs:x", "unknown benchmark 'hpatchs'; did you mean 'hpatches'?"),
        ("hpatches", r"no such folder \(write hpatches:PATH\)"),
        ("colmpa", "no such folder; did you mean 'colmap'?"),
        ("no/such/folder", "'no/such/folder': no such folder"),
        ("colmap:no/such/folder", "there is no no/such/folder; a COLMAP model .* is expected as images/"),
    ],
)
def test_what_cannot_be_opened_is_refused_in_one_sentence(spec: str, message: str) -> None:
    with pytest.raises(ProbeError, match=message) as caught:
        benchmarks.open_benchmark(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", benchmarks.NAMES)
def test_a_folder_of_another_form_is_refused_with_what_was_expected_and_found(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(ProbeError, match=r"^data .*: expected .*, found holiday.jpg$") as caught:
        benchmarks.open_benchmark(f"{name}:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_an_unknown_reader_is_refused_with_the_nearest() -> None:
    with pytest.raises(ProbeError, match="did you mean 'megadepth1500'"):
        benchmarks.reader("megadepth1501")


def test_a_file_is_no_benchmark(tmp_path: Path) -> None:
    (tmp_path / "a.zip").touch()
    with pytest.raises(ProbeError, match=r"a.zip is a file; a COLMAP model .* is expected as images/"):
        benchmarks.open_benchmark(f"colmap:{tmp_path / 'a.zip'}")
