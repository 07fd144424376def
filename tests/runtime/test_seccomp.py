"""The list of system calls: closed by default, and what must never be on it."""

import json

from runtime.seccomp import profile


def test_the_profile_is_closed_by_default() -> None:
    read = json.loads(profile())
    assert read["defaultAction"] == "SCMP_ACT_ERRNO"
    assert "architectures" not in read  # native only


def test_what_reaches_deep_is_not_open() -> None:
    read = json.loads(profile())
    always = {
        name
        for rule in read["syscalls"]
        if "args" not in rule and rule["action"] == "SCMP_ACT_ALLOW"
        for name in rule["names"]
    }
    deep = """
    io_uring_setup io_uring_enter io_uring_register bpf keyctl add_key request_key userfaultfd ptrace mount
    umount2 fsopen fsmount move_mount open_tree pivot_root chroot unshare setns clone clone3 kexec_load kexec_file_load
    init_module finit_module delete_module perf_event_open process_vm_readv process_vm_writev open_by_handle_at
    name_to_handle_at fanotify_init socket socketpair personality reboot swapon settimeofday clock_settime adjtimex
    syslog iopl ioperm acct
    quotactl lookup_dcookie vmsplice pidfd_getfd kcmp modify_ldt move_pages migrate_pages
    """
    assert not always & set(deep.split())


def test_programs_can_start_compute_and_end() -> None:
    always = set(json.loads(profile())["syscalls"][0]["names"])
    assert {"execve", "mmap", "brk", "read", "write", "openat", "futex", "exit_group", "getrandom", "rseq"} <= always
