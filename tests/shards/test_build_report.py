import json

from hypothesis import given
from hypothesis import strategies as st

from shards.build_report import Report, kind_of, read_report
from shards.convert import ConvertedScene
from shards.writer import EncodedChunk


def scene(
    name: str, frames: int, refused: int = 0, split: str = "train", denied: bool = False
) -> ConvertedScene:
    chunk = EncodedChunk(
        key=name, scene=0, split=split, kinds=0, overlap=0, meta=b"", covisibility=b"", jpegs=[b"x"] * frames
    )
    return ConvertedScene(
        name=name,
        split=split,
        licence="mine",
        frames_in=frames + refused,
        chunks=[chunk] if frames else [],
        refused=[(f"/data/{name}/{n}.jpg", f"is truncated after {n} bytes") for n in range(refused)],
        reason="" if frames else f"{refused} frames, at least 2 are needed",
        denied=denied,
        overlap_from="tracks",
        bytes_in=10 * frames,
    )


scenes = st.lists(
    st.builds(
        scene,
        st.text("ab", min_size=1, max_size=3),
        st.integers(0, 30),
        st.integers(0, 3),
        st.sampled_from(["train", "val"]),
    ),
    max_size=12,
)


def counted(scenes: list[ConvertedScene]) -> Report:
    report = Report()
    for one in scenes:
        report.add(one)
    return report


@given(scenes, scenes)
def test_parts_add_up_to_the_whole(first: list[ConvertedScene], second: list[ConvertedScene]) -> None:
    report = read_report(json.loads(json.dumps(counted(first).stored())))
    report.merge(counted(second))
    assert report == counted(first + second)
    assert report.frames_in == report.frames_out + report.frames_refused
    assert report.scenes_in == report.scenes_out + report.scenes_dropped


def test_reasons_are_grouped_without_their_numbers_and_paths() -> None:
    report = counted([scene("a", 3, refused=2), scene("b", 0, refused=1), scene("c", 24, denied=True)])
    assert report.refused_for == {"is truncated after N bytes": 3}
    assert report.dropped_for == {"N frames, at least N are needed": 1}
    assert (report.small_scenes, report.bytes_in, report.overlap_from) == (1, 270, {"tracks": 2})
    assert kind_of("cannot open /a/b.jpg after 12.5 % of it") == "cannot open ... after N % of it"


def test_denied_scenes_are_counted_among_the_dropped() -> None:
    report = counted([scene("a", 0, denied=True), scene("b", 0), scene("c", 2)])
    assert (report.scenes_denied, report.scenes_dropped, report.scenes_out) == (1, 2, 1)


def test_only_the_first_hundred_are_named_but_all_are_counted() -> None:
    report = counted([scene(f"s{n}", 2, refused=7) for n in range(60)])
    report.merge(counted([scene(f"t{n}", 0) for n in range(250)]))
    assert (report.frames_refused, len(report.refused)) == (420, 100)
    assert (report.scenes_dropped, len(report.dropped)) == (250, 100)


def test_reasons_beyond_a_hundred_kinds_are_counted_together() -> None:
    report = Report()
    for n in range(300):
        dropped = scene("s", 0)
        report.add(ConvertedScene(**{**vars(dropped), "reason": chr(0x4E00 + n)}))
    assert len(report.dropped_for) == 101 and report.dropped_for["other reasons"] == 200
