"""The one error class of this room: a mistake of the user, told in one sentence and without a traceback.

Everything else that is raised here is a bug or a broken machine, and keeps its traceback.
"""


class InputError(ValueError):
    """What the user gave cannot be used; the message says what, where, and how to mend it."""
