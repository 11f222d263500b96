"""The two ways a command can fail that are not defects.

The command line turns them into one sentence on stderr and an exit code; every other exception is a bug and keeps its traceback.
"""


class InputError(ValueError):
    """What the user gave cannot be used: exit code 2.

    The message is one sentence that says what is wrong, where (file, flag, class) and how to mend it.
    """


class CheckError(Exception):
    """A check or a budget failed: exit code 1.

    The message says which number does not hold, its limit and what was measured.
    """
