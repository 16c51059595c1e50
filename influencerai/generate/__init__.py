"""Pictures from a base model and LoRAs: sampling, grids, comparisons, and the record inside each picture."""

import influencerai.models  # noqa: F401 - it configures what torch reads when it is loaded
