"""A Config made into objects."""

import subprocess
import sys


def test_shapes_alone_are_those_of_the_network_and_need_no_compiler():
    code = (
        "import sys; from ddm.runs import build, recipes; config = recipes.recipes['small']()\n"
        "with build.shapes_alone(): shapes = build.make_network(config, channels=3, classes=10).state_dict()\n"
        "assert 'torch._dynamo' not in sys.modules, 'it takes a second to import'\n"
        "real = build.make_network(config, channels=3, classes=10).state_dict()\n"
        "assert {n: t.shape for n, t in shapes.items()} == {n: t.shape for n, t in real.items()}\n"
        "assert all(t.is_meta for t in shapes.values()) and len(real) > 100\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
