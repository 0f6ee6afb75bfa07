"""The command line: the only reader of sys.argv, and the only place where errors become exit statuses."""

import argparse
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from ddm.errors import DdmError, RequestError, one_line, unknown
from ddm.version import __version__

VERBS = {
    "train": "train a model, or resume it: the same command again",
    "sample": "make pictures with a trained model",
    "evaluate": "measure a model: distances with intervals, precision and recall, copies",
    "compare": "several sources measured alike: a table, which differences are real, pictures",
    "report": "one HTML file that shows a run: samples, films, curves, numbers, settings",
    "studio": "a web page where models are watched, used and compared",
    "convert": "a checkpoint of denoising-diffusion-pytorch as a run of ours",
    "export": "a run with only what sampling needs, to give away",
    "data": "what is in a data set, what is wrong with it, a preview",
    "list": "the recipes, samplers, networks, ... there are to choose from",
    "doctor": "is this installation sound; why is the FID of a model what it is",
}

HELP = """usage: ddm COMMAND ...

Train, understand, measure and show denoising diffusion models of images.

commands:
{verbs}

  ddm COMMAND --help   what a command takes, with examples
  ddm --version

first steps:
  ddm doctor
  ddm train shapes
  ddm sample runs/shapes
"""


class Parser(argparse.ArgumentParser):
    """Argparse whose errors are ours: one line, with the nearest flag as a hint."""

    def error(self, message: str):
        """Raise instead of printing the usage and leaving."""
        raise RequestError(message.removeprefix("argument "))

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse, or raise :class:`RequestError`."""
        arguments, left = self.parse_known_args(list(argv))
        if left:
            flag = left[0].partition("=")[0]
            close = get_close_matches(flag, self._option_string_actions, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise RequestError(
                f"{flag}: there is no such argument{hint}; ddm {self.prog.split()[-1]} --help lists them"
            )
        return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 done, 1 the work failed, 2 the request was wrong, 130 or 143 interrupted with the state saved.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]  a console without our letters
    try:
        return dispatch(list(sys.argv[1:] if argv is None else argv))
    except DdmError as error:
        if os.environ.get("DDM_DEBUG"):
            raise
        print(f"ddm: {error}", file=sys.stderr)
        return 2 if isinstance(error, RequestError) else 1
    except KeyboardInterrupt:
        print("ddm: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the exit does not fail on it again
        return 0
    except (OSError, RuntimeError, MemoryError) as error:
        line = explain(error)
        if line is None or os.environ.get("DDM_DEBUG"):
            raise
        print(f"ddm: {line}", file=sys.stderr)
        return 1


def explain(error: OSError | RuntimeError | MemoryError) -> str | None:
    """One line for a failure of the machine; None for what must be a mistake of ours."""
    if isinstance(error, OSError):
        return one_line(f"{error.filename or 'the system'}: {error.strerror or error}")
    # Torch's own errors are known by their names: it is not imported here.
    full = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if full or "not enough memory" in str(error):
        return "the device has too little memory; try a smaller --batch-size (with a larger train.accumulate)"
    if type(error).__name__.startswith("Dist") or "gloo" in str(error):
        return "another process of this launch is gone; the same command goes on from the last checkpoint"
    return None


def dispatch(argv: list[str]) -> int:
    """Find the verb, import it alone, and run it."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        verbs = "\n".join(f"  {verb:8} {summary}" for verb, summary in VERBS.items())
        print(HELP.format(verbs=verbs), end="")
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"ddm {__version__}")
        return 0
    verb, *rest = argv
    if verb not in VERBS:
        raise unknown("command", verb, VERBS)
    command = import_module(f"ddm.commands.{verb}")
    parser = Parser(
        prog=f"ddm {verb}",
        description=command.__doc__,
        epilog=command.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    command.add_arguments(parser)
    parser.add_argument("-q", "--quiet", action="store_true", default=False, help="say nothing but the result")
    parser.add_argument("--json", action="store_true", default=False, help="the result as one JSON object on stdout")
    status = command.run(parser.parse(rest))
    leave_the_others()
    return status


def leave_the_others() -> None:
    """Where a launcher started several processes, end their connection before the interpreter's end.

    Its threads would be cut off there, which aborts one of four such commands after its work is done. A command that
    failed skips this: its process must end at once, which is how the others learn of it.
    """
    watch = sys.modules.get("ddm.training.watch")
    if watch is not None:
        watch.leave()
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
