"""The crc32 of zip, PNG and the index, at the speed of memory: ISA-L's where it is installed, else zlib's.

Every frame's bytes are checked when they are read and every batch's when it is packed. With zlib's table code
that costs a tenth of a decode, with carry-less multiplication nothing to speak of. The numbers are the same.
"""

try:
    from isal.isal_zlib import crc32
except ImportError:  # a platform without its wheels
    from zlib import crc32

__all__ = ["crc32"]
