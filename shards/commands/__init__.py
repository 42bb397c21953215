"""The commands of `python -m shards`, a file each: `add(commands)` says its options, a function runs it.

A run function takes the parsed arguments, prints, and returns the exit code; ShardsError is bad input or
damage, said in one sentence by the caller. A command is listed in `COMMANDS` and nowhere else.
"""

COMMANDS = ("build", "info", "verify", "repair", "preview", "plan", "bench")
"""Modules of this package, in the order of the help page."""
