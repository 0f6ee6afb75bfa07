"""How pictures were made, in words."""

import pytest

from ddm.runs.making import in_words, special

PLAIN = {"sampler": "heun", "steps": 18, "guidance": 1.0, "guidance_low": 0.0, "guidance_high": None}
PLAIN |= {"guide": None, "clip": "none"}


@pytest.mark.parametrize(
    ("changes", "words", "told"),
    [
        ({}, "guidance 1.0, clip none", []),
        ({"guidance": 2.0}, "guidance 2.0, clip none", ["guidance 2"]),
        (
            {"guidance": 1.5, "guidance_low": 0.2, "guidance_high": 5.0},
            "guidance 1.5 in (0.2, 5], clip none",
            ["guidance 1.5 in (0.2, 5]"],
        ),
        (
            {"guidance": 3.0, "guidance_low": 0.2, "clip": "static"},
            "guidance 3.0 in (0.2, inf), clip static",
            ["guidance 3 in (0.2, inf)", "clip static"],
        ),
        (
            {"guidance": 0.0, "guidance_high": 5.0, "guide": "step 7 ema 1a2b"},
            "guidance 0.0 in (0, 5], guide step 7 ema 1a2b, clip none",
            ["guidance 0 in (0, 5]", "guide step 7 ema 1a2b"],
        ),
        ({"guidance_high": 5.0, "guide": "step 7"}, "guidance 1.0, guide step 7, clip none", []),
    ],
)
def test_guidance_reads_as_one(changes: dict, words: str, told: list[str]):
    assert ", ".join(in_words(PLAIN | changes)) == f"sampler heun, steps 18, {words}"
    assert special(PLAIN | changes) == told


def test_other_generators_have_other_settings():
    assert list(in_words({"pipeline": "DDIMPipeline", "steps": 5})) == ["pipeline DDIMPipeline", "steps 5"]
    assert special({"pipeline": "DDIMPipeline", "steps": 5}) == special({}) == []
