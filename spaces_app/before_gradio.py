"""Settings that gradio reads while it is imported: import this module first."""

import os

from temporary import own_folder

# Otherwise gradio asks its makers for news, and computes a table of its visitors after every click.
os.environ |= {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000000",
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
FOLDER = own_folder()
