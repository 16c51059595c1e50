"""Base models in torch: a module per family, loading, tokenizers, quantized weights, devices."""

import logging
import warnings

from influencerai.models.waiting import bound_spinning

bound_spinning()
# While it is imported, it warns about a kernel that quantized models would use; nothing here does.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
# Other libraries' bars, of which a notebook without ipywidgets would have nicer ones.
warnings.filterwarnings("ignore", message="IProgress not found")
