"""Which system calls a task may make.

Knows names of Linux system calls. Must never know a task. A list of what is allowed: a call a future kernel invents is
closed until someone opens it. What scientific programs need is open; what reaches deep into the kernel (io_uring, bpf,
keys, user namespaces, mounts, tracing, modules, clocks) is not.
"""

import json

_FILES = """
access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64 fallocate
fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat
fstatfs fsync ftruncate futimesat getcwd getdents getdents64 getxattr inotify_add_watch inotify_init inotify_init1
inotify_rm_watch lchown lgetxattr link linkat listxattr llistxattr lremovexattr lseek lsetxattr lstat mkdir mkdirat
mknod mknodat newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink
readlinkat readv removexattr rename renameat renameat2 rmdir sendfile setxattr splice stat statfs statx symlink
symlinkat sync sync_file_range syncfs tee truncate umask unlink unlinkat utime utimensat utimes write writev
"""

_MEMORY = """
brk get_mempolicy madvise mbind membarrier memfd_create mincore mlock mlock2 mlockall mmap mprotect mremap mseal msync
munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages set_mempolicy set_mempolicy_home_node
map_shadow_stack cachestat process_mrelease
"""

_PROCESSES = """
arch_prctl capget capset execve execveat exit exit_group fork getegid geteuid getgid getgroups getpgid getpgrp getpid
getppid getpriority getresgid getresuid getrlimit getrusage getsid gettid getuid ioprio_get ioprio_set kill
landlock_add_rule landlock_create_ruleset landlock_restrict_self pause pidfd_open pidfd_send_signal prctl prlimit64
restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
sched_setscheduler sched_yield seccomp set_robust_list get_robust_list set_tid_address setfsgid setfsuid setgid
setgroups setitimer getitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setuid
sigaltstack tgkill times tkill uname sysinfo getcpu vfork wait4 waitid alarm
"""

_WAITING = """
clock_getres clock_gettime clock_nanosleep epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait
eventfd eventfd2 futex futex_wait futex_waitv futex_wake futex_requeue gettimeofday io_cancel io_destroy io_getevents
io_pgetevents io_setup io_submit nanosleep poll ppoll pselect6 select signalfd signalfd4 time timer_create timer_delete
timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime
"""

_TALKING = """
accept accept4 bind connect getpeername getrandom getsockname getsockopt ioctl listen mq_getsetattr mq_notify mq_open
mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd pipe pipe2 recvfrom recvmmsg recvmsg semctl semget
semop semtimedop sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown
"""

_EPERM, _ENOSYS = 1, 38
_NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag of clone
_UNIX, _INET, _INET6 = 1, 2, 10  # families that stay on this machine or end at a network that is not there
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)  # the plain ones and the question which is set


def _equal(index: int, value: int) -> list[dict[str, object]]:
    return [{"index": index, "value": value, "op": "SCMP_CMP_EQ"}]


def profile() -> str:
    """The profile as the JSON text engines take inline. Architectures are left out: native only, foreign ones are
    killed.
    """
    plain = sorted(set((_FILES + _MEMORY + _PROCESSES + _WAITING + _TALKING).split()))
    allow = "SCMP_ACT_ALLOW"
    rules: list[dict[str, object]] = [{"names": plain, "action": allow}]
    rules += [{"names": ["socket"], "action": allow, "args": _equal(0, family)} for family in (_UNIX, _INET, _INET6)]
    rules += [{"names": ["socketpair"], "action": allow, "args": _equal(0, _UNIX)}]
    rules += [{"names": ["personality"], "action": allow, "args": _equal(0, value)} for value in _PERSONALITIES]
    no_namespace = [{"index": 0, "value": _NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
    rules += [{"names": ["clone"], "action": allow, "args": no_namespace}]
    # Its flags lie in memory where no filter can look; libc falls back to clone when told that it does not exist.
    rules += [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS}]
    return json.dumps(
        {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": _EPERM, "syscalls": rules}, separators=(",", ":")
    )
