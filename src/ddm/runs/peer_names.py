"""Names of weights in the public package denoising-diffusion-pytorch, and ours."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from ddm.errors import RequestError


def renamed(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the package's ``Unet`` under the names and in the shapes of ours.

    Args:
        state: ``state_dict()`` of theirs.
        like: ``state_dict()`` of ours, for the shapes.

    Raises:
        RequestError: a tensor of theirs or of ours is left over, or two that correspond differ in size.
    """
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("downs."))
    places = dict(_places(depth))
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        place = next((theirs for theirs in places if key.startswith(f"{theirs}.")), None)
        if place is None:
            raise RequestError(f"network: ours has no place for {key}")
        name = places[place] + INSIDE.get(key[len(place) :], key[len(place) :])
        if key.endswith("mem_kv") and value.ndim == 4 and value.shape[2] > value.shape[3]:
            value = value.mT  # linear attention keeps it as [..., head width, memory], full attention turned around
        ours = like.get(name)
        if ours is None or name in found or ours.numel() != value.numel():
            shape = tuple(ours.shape) if ours is not None else "nothing"
            raise RequestError(f"network: {key} is {tuple(value.shape)}, ours has {shape} for it")
        # Gains lose a leading 1; a 1x1 convolution of the pixels of 2x2 squares becomes one of 2x2 with stride 2.
        found[name] = value.reshape(ours.shape)
    missing = sorted(like.keys() - found.keys())
    if missing:
        raise RequestError(f"network: theirs has nothing for {missing[0]} of ours")
    return found


def _places(depth: int) -> Iterator[tuple[str, str]]:
    """Where their modules are in ours."""
    yield from {"init_conv": "stem", "time_mlp.1": "time.0", "time_mlp.3": "time.2"}.items()
    for level in range(depth):
        down, up, ours = f"downs.{level}", f"ups.{depth - 1 - level}", f"body{'.deeper.level' * level}"
        for number, part in enumerate(("1", "2", "_attention")):
            yield f"{down}.{number}", f"{ours}.down{part}"
            yield f"{up}.{number}", f"{ours}.up{part}"
        deepest = level == depth - 1
        yield (f"{down}.3", f"{ours}.deeper.widen") if deepest else (f"{down}.3.1", f"{ours}.deeper.shrink")
        # They enlarge at the end of a level, we after it.
        yield (f"{up}.3.1", f"{ours.removesuffix('.level')}.grow.1") if level else (f"{up}.3", "narrow")
    for theirs, part in {"mid_block1": "block1", "mid_attn": "attention", "mid_block2": "block2"}.items():
        yield theirs, f"body{'.deeper.level' * (depth - 1)}.deeper.{part}"
    yield from {"final_res_block": "last", "final_conv": "head"}.items()


INSIDE = {
    ".block1.norm.g": ".norm1.gain",
    ".block2.norm.g": ".norm2.gain",
    ".norm.g": ".norm.gain",
    ".to_out.1.g": ".out.1.gain",
    ".mem_kv": ".memory",
}
INSIDE |= {
    f".{theirs}.{kind}": f".{ours}.{kind}"
    for kind in ("weight", "bias")
    for theirs, ours in {
        "mlp.1": "modulation",
        "block1.proj": "conv1",
        "block2.proj": "conv2",
        "res_conv": "shortcut",
        "to_qkv": "query_key_value",
        "to_out": "out",
        "to_out.0": "out.0",
    }.items()
}
"""Their names of parameters inside a block or an attention, and ours."""
