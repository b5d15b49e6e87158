"""What gradio looks for while it is imported: this module comes before it."""

import os

from temporary import own_folder

# It would ask its makers for news, and count its visitors in a table that it computes anew after every click.
os.environ |= {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000000",
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
FOLDER = own_folder()
