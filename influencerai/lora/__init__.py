"""LoRA adapters: layers, injecting and ejecting them, and their files in every layout.

`adapter_file` and `description` read files without torch.
"""

import influencerai.models  # noqa: F401 - it configures what torch reads when it is loaded
