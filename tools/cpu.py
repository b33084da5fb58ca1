"""Set .venv up with another build of PyTorch than pip's: `UV_TORCH_BACKEND=cpu python3 -m tools.cpu`.

For machines without a GPU, where pip would bring gigabytes of CUDA along. Afterwards the targets of make find .venv
ready, and keep it as long as `pyproject.toml` and `constraints.txt` stay as they are.
"""

from __future__ import annotations

import sys

from tools import fresh, venv


def main() -> int:
    """Make .venv anew, torch first."""
    folder = venv.ROOT / ".venv"
    python = fresh.create(folder)
    fresh.pip(python, "-c", "constraints.txt", "--upgrade", "pip")
    fresh.torch_by_uv(python, "-c", "constraints.txt")
    venv.install(folder, create=False)
    (folder / "ready").write_text("\n".join(venv.key(venv.ROOT)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
