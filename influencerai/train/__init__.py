"""Training: the loop, the optimizer, the encoded data (`data/`) and the files of a run (`runs/`)."""

import influencerai.models  # noqa: F401 - it configures what torch reads when it is loaded
