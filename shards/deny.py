"""Evaluation scenes that must stay out of training: a table by source, and what a user adds to it.

A scene is known by the name its dataset gives it, wherever that stands in the scene's name: `0015`,
`Undistorted_SfM/0015` and `0015/dense0` are one. The table names only what its source says to be for
evaluation. Frames within a scene (ScanNet++'s test frames) and splits that come in a dataset's own files
(CO3D's and WildRGB-D's lists) are their sources' business. This file knows nothing of how scenes are read.
"""

import hashlib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from shards.format import ShardsError

_MEGADEPTH_1500 = "MegaDepth-1500"
_IMC_2021 = "Image Matching Challenge 2021"

# MegaDepth-1500's two scenes and the eight that share landmarks with the challenge's test set are what LoFTR
# (Sun et al., 2021), DKM and RoMa (Edstedt et al., 2023, 2024: MegadepthBuilder.test_scenes_loftr and
# .imc21_scenes) leave out of training. Their further list `loftr_ignore_scenes` holds scenes whose
# preprocessing failed for LoFTR, none of them for evaluation, so it has no place here. ScanNet's test split
# (Dai et al., 2017) is scene0707_00 to scene0806_00; ScanNet-1500 is drawn from it.
_MEGADEPTH = {
    **dict.fromkeys(("0015", "0022"), _MEGADEPTH_1500),
    **dict.fromkeys(("0008", "0019", "0021", "0024", "0025", "0032", "0063", "1589"), _IMC_2021),
}
_SCANNET = {f"scene{number:04d}_*": "ScanNet test split" for number in range(707, 807)}

# The first 16 of 64 digits of the 139 scenes in the evaluation index for the DL3DV benchmark that DepthSplat's
# descendants use (github.com/x423xu/depthsplat, dl3dv_6v.json). The benchmark has 140: its own list
# (benchmark-meta.csv, on request from its makers) tells the last one, to be added with a file.
_DL3DV = """
    032dee9fb0a8bc1b 0569e83fdc248a51 06da796666297fe4 073f5a9b983ced6f 0853979305f7ecb8 093ef327b4e4f9d4
    0a1b7c20a92c43c6 0a485338bbdaf19b 0bfdd020cf475b9c 119fd56d3797e2d3 1264931635e127fb 14eb48a50e37df54
    15ff83e2531668d2 165f5af8bfe32f70 183dd248f6a86e07 1ba74c22670ad047 1d6a9ed47cce39fd 1da888bdedfc9629
    1de58be515696102 2385549d398bdfb5 26fd23358fa11fff 280abf7bd93b81b0 286239bd0d4436b7 2991a75d1f0fb2b7
    2b65ba886efac7af 2beaca318994c254 2cbfe28643b6636f 2f3e1c0f688c84ce 32c2b92fac40c698 341b4ff3dfd3d377
    35317e621976e87f 35872363e17af5d1 374ffd0c5ff8e544 387eeb925ba47af5 389a460ca1995e06 3b16a10ec9b4ab71
    3b7529dcccf7097c 3bb3bb4d3e871d79 3bb894d1933f3081 41036716da7efda3 444da1b4a3f1ca01 457e9a1ae777b0c7
    484c0aca40c1087f 493816813d2d6d24 4ae797d07b6d1644 4ff8650b5c1140e9 50c46cf8b8b22c8d 513e4ea2e8477b06
    54bf355ca7e08ed1 56452d9cd9e2e034 565553aa894be621 599ca3e04cae3ec8 5a27c00f525f5484 5a69d1027b477be4
    5c3af581028068a3 5c8dafad7d782c76 5f0041e53d59d67c 63798f5c6fbfcb4e 669c36225b273e22 66fd66cbed40a2d1
    6d221625614d0515 6d81c5ab0d480fd4 6e11e7f4fea305c7 70eac6ff18a1daae 71b2dc8a2aa553da 75fbbe467353cfde
    7705a2edd022de9d 7a9f97660be8f242 7da3db99059a436a 800cf88687a79c23 8324b3ca22085040 85cd0e92110bcd35
    8b9fb9d9f10e8c64 8cb2e97d26a639f0 8fdc5130f0731360 90cb7ef95384138c 917e9c8985d353b0 918c8dad730c3b80
    91afb9910b042f71 946f49be73928469 9641a1ed7963ce5c 9c8c0e0fadd97abf 9cbc5548643ca9cf 9e9a89ae6fed06d6
    9fb0588ff045ec64 a17a984ca90a9b58 a401469cb0fa576b a62c330f5403e2e4 a62f9a1c6362e7c8 a726c1112ad026ef
    adb95f29c15b8a89 adf35184a12d4cfa af0d7039e64af395 b2076bc7231bac44 b3bf9079b442c681 b4f53094fd31dcc2
    b5faa2a8ce980030 b6d1134cb03c855d b92b499c9bf92327 ba55c875d20c34ee c076929db6501cf7 c37109a55effe000
    c37726ce770ac50a c455899acfc88163 cbd44beb04f9c98f cc08c0bdc34ddd28 cd9c981eeb4a9091 ceb252f5d4419510
    d1b3a0b37acc7220 d3812aad538261e7 d3af8212ae1600f0 d4fbeba0168af8fd d8de66037bd03dd0 d904ae2998f775e4
    d9b6376623741313 d9f4c746e6fa4563 dac9796dd69e1c25 dafa9c7cbda9d1dd ddfdcfdf02d53dd8 ded5e4b46aedbef4
    df04f58064684c1a df29c225863d0173 df4f9d9a0adfc54c e5684b3292bfd77d e78f8cebd2bd93d9 e8ce51b6abfe05bf
    e9360e7a89bee835 eb4cf52988f805e6 ec1e44d4dc0f8fa7 ec305787b70029b7 ed16328235c610f1 ef59aac437132bfc
    f004c810d94bac93 f477ffc4b398bed8 f71ac346cd0fc465 f7aaea9ac683bb19 fb2c0499c225d612 fb3b73f1d3fe9d19
    ff592398657b3dfe
"""

_DL3DV_SCENES = {f"{digits}*": "DL3DV benchmark" for digits in _DL3DV.split()}

DEFAULT: dict[str, dict[str, str]] = {
    "megadepth": _MEGADEPTH,
    "dl3dv": _DL3DV_SCENES,
    "scannet": _SCANNET,
    "imagenet": {"ILSVRC2012_test_*": "ImageNet test split"},
    # Annotation files do not say which dataset they list: a scene that is called like one for evaluation is left out.
    "jgz": {
        name: f"{reason}, by its name" for name, reason in (_MEGADEPTH | _DL3DV_SCENES | _SCANNET).items()
    },
}
"""Source -> pattern of one part of a scene's name -> what it is evaluated in."""

_ANY = "*"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Which scenes to leave out, and why."""

    exact: dict[tuple[str, str], str]
    """(source, part of a scene's name) -> reason."""
    patterns: dict[str, list[tuple[str, str]]]
    """Source -> (pattern, reason), for parts with wild cards."""

    def denied(self, source: str, scene: str) -> str:
        """Why a scene is left out, as the report says it; empty where it may be trained on."""
        for part in dict.fromkeys((scene, *scene.split("/"))):
            for name in (source, _ANY):
                if (name, part) in self.exact:
                    return f"evaluation scene: {self.exact[name, part]}"
                for pattern, reason in self.patterns.get(name, ()):
                    if fnmatchcase(part, pattern):
                        return f"evaluation scene: {reason}"
        return ""

    @property
    def hash(self) -> str:
        """Hex digest of all rules."""
        rows = sorted(self.exact.items()), sorted(self.patterns.items())
        return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


def read_rules(deny: str = "default") -> Rules:
    """The rules of `--deny`: `default`, `none`, or a text file whose lines add to the default.

    A line is `source scene reason`: `*` stands for any source, the scene may hold wild cards, `#` begins a
    comment. ShardsError names a file or a line that cannot be read.
    """
    rows = (
        []
        if deny == "none"
        else [
            (source, scene, reason) for source, scenes in DEFAULT.items() for scene, reason in scenes.items()
        ]
    )
    if deny not in {"default", "none"}:
        rows += _read_lines(Path(deny))
    patterns: dict[str, list[tuple[str, str]]] = {}
    for source, scene, reason in rows:
        if _is_pattern(scene):
            patterns.setdefault(source, []).append((scene, reason))
    exact = {(source, scene): reason for source, scene, reason in rows if not _is_pattern(scene)}
    return Rules(exact=exact, patterns=patterns)


def denied(source: str, scene: str) -> str:
    """Why the default table leaves a scene out; empty where it may be trained on."""
    return read_rules().denied(source, scene)


def _read_lines(path: Path) -> list[tuple[str, str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ShardsError(
            f"--deny {path} cannot be read ({why}): give default, none or a text file with lines of"
            " `source scene reason`"
        ) from None
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split(maxsplit=2)
        if not words:
            continue
        if len(words) < 2:
            raise ShardsError(f"{path}, line {number}: {line.strip()!r} is not `source scene reason`")
        rows.append((words[0], words[1], words[2].strip() if len(words) == 3 else f"listed in {path.name}"))
    return rows


def _is_pattern(scene: str) -> bool:
    return any(sign in scene for sign in "*?[")
