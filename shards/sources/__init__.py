"""Dataset families, a file each: every source finds scenes and reads them, one at a time."""
