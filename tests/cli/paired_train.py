"""`netsmith` as typed in one of several processes of torchrun, each in a folder of its own, to the exported model.

python paired_train.py FOLDER netsmith's arguments...
    with the variables of torchrun; the process works in FOLDER/RANK. The word OWN_RANK stands for its number.
"""

import os
import sys
from pathlib import Path

import pytest
from cut_short import ends_when_exported

from netsmith.cli.main import run

OWN_RANK = "OWN_RANK"

if __name__ == "__main__":
    rank = os.environ["RANK"]
    place = Path(sys.argv[1], rank)
    place.mkdir()
    os.chdir(place)
    ends_when_exported(pytest.MonkeyPatch())
    sys.exit(run([rank if word == OWN_RANK else word for word in sys.argv[2:]]))
