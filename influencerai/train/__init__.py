"""The trainer: the only room with torch."""

import logging

# While it is imported, it warns about a kernel that quantized models would use; nothing here does.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
