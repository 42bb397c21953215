"""The one error of this package that a user can mend: bad input, said in one sentence."""


class InputError(ValueError):
    """What was given, where it is wrong and how to mend it; command lines print it and exit with 2."""
