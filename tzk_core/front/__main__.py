"""``python -m tzk_core.front``, which ``tzk serve`` runs."""

from __future__ import annotations

from tzk_core.front.run import main

if __name__ == "__main__":
    main()
