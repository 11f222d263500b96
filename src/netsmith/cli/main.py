"""The command `netsmith`.

How a verb is added: write `netsmith/cli/VERB.py` with

- one function whose arguments are the command's: positional-only for what is worked on, keyword-only flags, last
  `output: Output = PLAIN`; its docstring is the help (lines of the text under 78 columns, then `Args:`);
- `EXAMPLES`, printed under the help;

then add a row to `VERBS` here. The function parses nothing itself, calls one function of a lower layer and prints
through `console.Console`. Several processes of torchrun get no further than here, unless the row says `several`. The
function returns None, or raises:

    InputError    the user's mistake: one sentence on stderr, exit code 2; a full disk, and a file that the system
                  does not let be read or written, are told the same way
    CheckError    a check or a budget failed: one sentence on stderr, exit code 1
    KeyboardInterrupt(HOW_TO_GO_ON)   exit code 130 after Ctrl-C, 143 after SIGTERM

Everything else is a defect and keeps its traceback. Only the module of the verb that was typed is imported, so `--help`
stays fast; torch, onnxruntime and numpy are imported inside the verb's function, never at the top of its module.
"""

import errno
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import FrameType

from cyclopts import (
    App,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    UnknownOptionError,
    UnusedCliTokensError,
)

from netsmith import __version__
from netsmith.cli.console import tell
from netsmith.errors import CheckError, InputError, near
from netsmith.run.files import FULL_DISK
from netsmith.run.waiting import waiting
from netsmith.run.world import refuse_several


@dataclass(frozen=True)
class Verb:
    """Where a verb's function is, what the list of verbs says about it, and whether processes may do it together."""

    function: str
    help: str
    several: bool = False


VERBS = {
    "audit": Verb("netsmith.cli.audit:audit", "Say what is in a data set and what is wrong with it."),
    "bench": Verb("netsmith.cli.bench:bench", "Measure how fast an artifact is here, in one runtime or all."),
    "compress": Verb("netsmith.cli.compress:compress", "Make the best of a trained model that fits a budget."),
    "curves": Verb("netsmith.cli.curves:curves", "Draw the learning curves of one run or several in one picture."),
    "distill": Verb("netsmith.cli.distill:distill", "Train a small network to answer as larger ones do."),
    "export": Verb("netsmith.cli.export:export", "Write the folder to ship from a run, an artifact or a name."),
    "extend": Verb("netsmith.cli.extend:extend", "Grow a trained network without changing what it computes."),
    "fit": Verb("netsmith.cli.fit:fit", "Find and train the most accurate classifier that fits a budget."),
    "import-weights": Verb("netsmith.cli.import_weights:import_weights", "Make a model folder from a checkpoint."),
    "models": Verb("netsmith.cli.models:models", "List the networks: size, work, resolution, accuracy, weights."),
    "predict": Verb("netsmith.cli.predict:predict", "Name the most probable classes of pictures."),
    "profile": Verb("netsmith.cli.profile:profile", "Show where a network's parameters, work, memory and time go."),
    "prune": Verb("netsmith.cli.prune:prune", "Make a trained network smaller by leaving out what matters least."),
    "quantize": Verb(
        "netsmith.cli.quantize:quantize", "Round a trained network to int8, and keep it only where that pays."
    ),
    "report": Verb("netsmith.cli.report:report", "Write the report of a run, finished or not, as one HTML file."),
    "scale": Verb("netsmith.cli.scale:scale", "Scale a network to a cost: as near as it gets, never above."),
    "train": Verb("netsmith.cli.train:train", "Train one network and finish it like a fit.", several=True),
    "val": Verb("netsmith.cli.val:val", "Score an artifact on labelled pictures: top-1, top-5, loss."),
    "verify": Verb("netsmith.cli.verify:verify", "Check everything that a run or an artifact says about itself."),
}

FLAGS = ("--help", "-h", "--version")
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ELOOP, errno.ESTALE})
"""`errno` of an OSError that says that a file is kept from us: by its permissions, its disk, or being a link."""
EXTRAS = {"torch": "train", "sklearn": "train", "simplejpeg": "train", "tensorboard": "tensorboard"}
HELP = "From a folder of labelled images and a deployment budget to the most accurate image classifier that fits."
EXAMPLES = """\
Examples:

  netsmith audit photos/     what is in a folder of photos, and what is wrong
  netsmith fit photos/ --budget latency=5ms,size=4MB --time 30m -o runs/photos
                             the most accurate classifier that fits
  netsmith predict runs/photos new.jpg

Help on one verb: netsmith VERB --help
"""


def build(typed: str | None = None) -> App:
    """The application with the verb that was typed imported, the others known by name and one line."""
    app = App(
        name="netsmith",
        help=HELP,
        help_epilogue=None if typed in VERBS else EXAMPLES,
        help_format="plaintext",
        version=__version__,
        suppress_keyboard_interrupt=False,
        print_error=False,
        exit_on_error=False,
        result_action="return_value",
        default_parameter=Parameter(negative=()),
    )
    app["--help"].group = "Help"
    app["--version"].group = "Help"
    for name, verb in VERBS.items():
        if name == typed:
            home, _, function = verb.function.partition(":")
            module = import_module(home)
            app.command(getattr(module, function), name=name, help_epilogue=module.EXAMPLES)
        else:
            app.command(verb.function, name=name, help=verb.help)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: what was typed after `netsmith`.

    Returns:
        The exit code.
    """
    first = arguments[0] if arguments else "--help"
    if first not in VERBS and first not in FLAGS:
        return _fail(
            2, f"there is no {'flag' if first.startswith('-') else 'verb'} {first!r}; {near(first, [*VERBS, *FLAGS])}"
        )
    if "" in arguments:  # what a shell makes of a variable that is not set; it never means "here" or "no limit"
        before = arguments[arguments.index("") - 1]
        return _fail(2, f"the argument after {before!r} is empty; give it a value or leave it out")
    terminated = False

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal terminated
        terminated = True
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        if first in VERBS and not VERBS[first].several:
            refuse_several(first, "only netsmith train uses several: type it without torchrun, or with RANK unset")
        build(first)(list(arguments))
        sys.stdout.flush()
    except CycloptsError as error:
        return _fail(2, _explain(error))
    except InputError as error:
        return _fail(2, str(error))
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        extra = EXTRAS[error.name]
        return _fail(2, f"{first} needs the package {error.name}; pip install 'netsmith[{extra}]'")
    except CheckError as error:
        return _fail(1, str(error))
    except KeyboardInterrupt as error:
        how = f"; {error}" if str(error) else ""
        return _fail(143 if terminated else 130, f"stopped by {'SIGTERM' if terminated else 'Ctrl-C'}{how}")
    except BrokenPipeError:
        # Whoever read the output has seen enough; without this the interpreter complains when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno in _REFUSED and error.filename:
            return _fail(2, f"{error.filename} cannot be used ({error.strerror}); mend that and type the command again")
        if error.errno not in FULL_DISK:
            raise
        where = f" for {error.filename}" if error.filename else ""
        return _fail(
            2,
            f"no space is left on the disk{where} ({error.strerror}); free some and type the command again, a run "
            "that was begun goes on (all but fit: with --resume)",
        )
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def main() -> None:
    """Entry point of the command."""
    os.environ.update(waiting(os.environ))
    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # such as a log on a full disk; the interpreter would end with a code of its own
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _fail(code: int, message: str) -> int:
    tell(f"netsmith: {message}")
    return code


def _explain(error: CycloptsError) -> str:
    """A parse error as one sentence with the mend."""
    see = " ".join(["see netsmith", *(error.command_chain or ()), "--help"])
    if isinstance(error, UnknownOptionError):
        flag = error.token.keyword or error.token.value
        names = [name for argument in error.argument_collection for name in argument.names if name.startswith("--")]
        return f"there is no flag {flag!r}; {near(flag, names)}"
    if isinstance(error, MissingArgumentError) and error.argument is not None and not error.tokens_so_far:
        flag = error.keyword or error.argument.name
        return f"{flag} needs a value; {see}" if flag.startswith("-") else f"{flag} is missing; {see}"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"{error.unused_tokens[0]!r} is one argument too many; {see}"
    return f"{' '.join(str(error).split()).rstrip('.')}; {see}"
