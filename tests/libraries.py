"""What forks of `forks.LIBRARIES` need not import: the libraries that take long and ask for no Hub."""

import gc
import importlib

for _name in (
    "torch", "torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.fsdp", "torch.distributed.tensor",
    "torch.nn.parallel", "torch.utils.data", "torch.utils.flop_counter", "torchvision.transforms.v2", "pandas", "pyarrow.dataset",
    "pyarrow.parquet", "scipy.optimize", "scipy.stats", "sklearn.linear_model", "sklearn.metrics", "sympy", "matplotlib.figure",
    "fsspec", "httpx", "pydantic", "requests", "rich.logging", "PIL.Image",
):  # fmt: skip
    importlib.import_module(_name)
gc.collect()
gc.freeze()  # as in preloaded.py
