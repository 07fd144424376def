"""What tests with real containers share: programs that try what no task may, and what is expected of an outcome."""

import struct

from runtime.task import Broke, Finished, Outcome, Reason
from tests.engine import syscall_program

# Every call is refused whatever its arguments, so they are zeros but where the filter looks at one.
FORBIDDEN_CALLS = {
    "io_uring_setup": (425, (8,)),
    "vsock": (41, (40, 1)),
    "netlink": (41, (16, 3)),
    "packet": (41, (17, 3)),
    "alg": (41, (38, 5)),
    "bpf": (321, ()),
    "keyctl": (250, ()),
    "add_key": (248, ()),
    "userfaultfd": (323, ()),
    "ptrace": (101, ()),
    "process_vm_readv": (310, ()),
    "mount": (165, ()),
    "fsopen": (430, ()),
    "open_tree": (428, ()),
    "unshare_user": (272, (0x10000000,)),
    "clone_user": (56, (0x10000000 | 17,)),
    "setns": (308, ()),
    "perf_event_open": (298, ()),
    "kexec_load": (246, ()),
    "init_module": (175, ()),
    "open_by_handle_at": (304, ()),
    "pivot_root": (155, ()),
    "chroot": (161, ()),
    "settimeofday": (164, ()),
    "reboot": (169, ()),
    "modify_ldt": (154, ()),
    "personality_no_aslr": (135, (0x0040000,)),
}


def programs() -> dict[str, bytes]:
    """Executables for x86-64, by their path in the image."""
    made = {f"calls/{name}": syscall_program(number, *args) for name, (number, args) in FORBIDDEN_CALLS.items()}
    made["calls/clone3"] = syscall_program(435)
    made["calls/getpid"] = syscall_program(39)
    made["calls/mlockall"] = syscall_program(151, 3)
    made["calls/open_without_end"] = _elf(_OPEN_WITHOUT_END)
    return made


# Duplicate stdin until that fails, and exit with the number of successes divided by 256.
_OPEN_WITHOUT_END = bytes.fromhex(
    "31db"  # ebx = 0
    "b82000000031ff0f05"  # again: eax = dup(0)
    "85c07804"  # if eax < 0 go to the end
    "ffc3ebef"  # ebx += 1; go to again
    "c1eb0889df"  # end: edi = ebx >> 8
    "b8e70000000f05"  # exit_group(edi)
)


def _elf(code: bytes) -> bytes:
    """A static x86-64 executable of nothing but code."""
    base, headers = 0x400000, 64 + 56
    size = headers + len(code)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000) + code


def finished(outcome: Outcome) -> Finished:
    """The outcome, which must be that the program ended."""
    assert isinstance(outcome, Finished), outcome
    return outcome


def broke(outcome: Outcome, reason: Reason) -> Broke:
    """The outcome, which must be that it broke for this reason."""
    assert isinstance(outcome, Broke), outcome
    assert outcome.reason == reason, outcome
    return outcome
