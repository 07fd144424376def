"""What a task sees in its environment, the same on every machine.

Knows the variables. Must never know the machine: a peer's name, a core count or the time of day would make honest
replicas differ.
"""

from nexapod.hashing import HASH_BYTES, Tag, tagged
from runtime.task import TaskSpec

# Taken: a job cannot set these, because a checker or another replica counts on them.
_FIXED = {
    "TZ": "UTC",
    "LC_ALL": "C",
    "SOURCE_DATE_EPOCH": "0",
    "PYTHONHASHSEED": "0",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
}

# Defaults a job may change for itself (all replicas see the same change). Threads: sums in parallel are not repeatable.
# Dispatch: the same binary picks other instructions on another processor, and the last digit follows.
_DEFAULTS = {
    "OMP_NUM_THREADS": "1",
    "OMP_DYNAMIC": "FALSE",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENBLAS_CORETYPE": "Nehalem",
    "MKL_NUM_THREADS": "1",
    "MKL_DYNAMIC": "FALSE",
    "MKL_CBWR": "COMPATIBLE",
    "BLIS_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "JULIA_NUM_THREADS": "1",
    "TF_DETERMINISTIC_OPS": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-FMA,-FMA4,-AVX2_Usable,-FMA_Usable,-FMA4_Usable",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}

_OWN_PREFIX = "NEXAPOD_"


def reserved(name: str) -> bool:
    """Whether a job may not set this variable."""
    return name in _FIXED or name.startswith(_OWN_PREFIX)


def environment(spec: TaskSpec) -> dict[str, str]:
    """Every variable set for the task, sorted by name; what a job says about reserved names is left out."""
    asked = {name: value for name, value in spec.env if not reserved(name)}
    own = {
        "NEXAPOD_JOB_ID": spec.job_id,
        "NEXAPOD_TASK_INDEX": str(spec.index),
        "NEXAPOD_TASK_COUNT": str(spec.count),
        "NEXAPOD_SEED": str(spec.seed),
    }
    return dict(sorted((_DEFAULTS | asked | _FIXED | own).items()))


def task_seed(descriptor_hash: bytes, index: int) -> int:
    """The 63-bit seed of a task, of descriptor and index only: a repeated publication repeats its bytes."""
    assert len(descriptor_hash) == HASH_BYTES, "a descriptor hash has 32 bytes"
    digest = tagged(Tag.TASK_SEED, descriptor_hash, index.to_bytes(8, "big"))
    return int.from_bytes(digest[:8], "big") >> 1
