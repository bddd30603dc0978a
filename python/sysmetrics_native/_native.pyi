# The cffi extension. Its names are those of csrc/sysmetrics.cdef.h.

from typing import Any

ffi: Any
lib: Any
