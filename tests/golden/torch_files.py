"""Two small files as PyTorch writes them, for tests/test_weights.py.

tests/golden/torch_files.py, with torch 2.14.1, wrote torch_zip.pth (the format since 1.6) and
torch_stream.pth (the one before) of the same tensors, which `expected` states without torch.
"""

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent


def expected() -> dict[str, np.ndarray]:
    base = np.arange(24, dtype="float32").reshape(2, 3, 4)
    return {
        "plain": base,
        "transposed": base.T,  # a view with strides of its own
        "slice": base[1, 1:, ::2],  # a view of the same storage, with an offset
        "half": np.array([0.5, -2.0], "float16"),
        "count": np.array(7, "int64"),
        "parameter": np.array([[1.0], [2.0]], "float32"),
        "empty": np.zeros((0, 3), "float32"),
    }


def main() -> None:
    import torch

    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    state = {
        "plain": base,
        "transposed": base.permute(2, 1, 0),
        "slice": base[1, 1:, ::2],
        "half": torch.tensor([0.5, -2.0], dtype=torch.float16),
        "count": torch.tensor(7),
        "parameter": torch.nn.Parameter(torch.tensor([[1.0], [2.0]])),
        "empty": torch.zeros(0, 3),
    }
    torch.save({"epoch": 3, "state_dict": state}, FOLDER / "torch_zip.pth")
    torch.save(state, FOLDER / "torch_stream.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
