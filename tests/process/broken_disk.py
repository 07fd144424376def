"""A daemon whose disk fails every write to the ledger once the file NEXAPOD_TEST_BROKEN exists."""

import os
from pathlib import Path
from typing import Any

import plyvel

from daemon.main import main
from ledger import store

switch = Path(os.environ["NEXAPOD_TEST_BROKEN"])


class FailingDatabase:
    """LevelDB as it behaves on a disk that answers EIO."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._real = plyvel.DB(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def write_batch(self, *args: Any, **kwargs: Any) -> Any:
        if switch.exists():
            raise plyvel.IOError("IO error: 000005.log: Input/output error")
        return self._real.write_batch(*args, **kwargs)


class FailingPlyvel:
    """The module as ledger/store.py sees it."""

    DB = FailingDatabase

    def __getattr__(self, name: str) -> Any:
        return getattr(plyvel, name)


if __name__ == "__main__":
    store.plyvel = FailingPlyvel()
    main()
