"""The progress bar of long work: every second in a terminal, a line every half minute in a log file."""

import sys
from functools import partial

from tqdm import tqdm

progress = partial(tqdm, mininterval=1 if sys.stderr.isatty() else 30, smoothing=0.05)
