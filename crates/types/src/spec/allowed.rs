//! The system calls that the default filter allows, by what they are for. What is not here is
//! refused: loading code into the kernel, other processes' namespaces and mounts, clocks, swap,
//! keyrings, io_uring, tracing of the kernel, and what nothing uses any more.
//!
//! Names are separated by white space, and are those of all architectures; a filter takes those
//! that its machine has.

/// Without a condition.
pub(super) const ALWAYS: [&str; 12] = [
    OPENING, READING, NAMES, ATTRIBUTES, WATCHING, MEMORY, PROCESSES, IDENTITY, SCHEDULING,
    SIGNALS, TIME, TALKING,
];

const OPENING: &str = "
    access chdir close close_range creat dup dup2 dup3 faccessat faccessat2 fchdir fcntl fcntl64
    flock getcwd ioctl memfd_create memfd_secret name_to_handle_at open openat openat2 pipe pipe2
    umask
";

const READING: &str = "
    _llseek cachestat copy_file_range fadvise64 fadvise64_64 fallocate fdatasync fsync ftruncate
    ftruncate64 getdents getdents64 io_cancel io_destroy io_getevents io_pgetevents
    io_pgetevents_time64 io_setup io_submit lseek pread64 preadv preadv2 pwrite64 pwritev pwritev2
    read readahead readv sendfile sendfile64 splice sync sync_file_range syncfs tee truncate
    truncate64 vmsplice write writev
";

const NAMES: &str = "
    link linkat mkdir mkdirat mknod mknodat readlink readlinkat rename renameat renameat2 rmdir
    symlink symlinkat unlink unlinkat
";

const ATTRIBUTES: &str = "
    chmod chown chown32 fchmod fchmodat fchmodat2 fchown fchown32 fchownat fgetxattr flistxattr
    fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 futimesat getxattr getxattrat
    lchown lchown32 lgetxattr listmount listxattr listxattrat llistxattr lremovexattr lsetxattr
    lstat lstat64 newfstatat removexattr removexattrat setxattr setxattrat stat stat64 statfs
    statfs64 statmount statx utime utimensat utimensat_time64 utimes
";

const WATCHING: &str = "
    _newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2
    epoll_wait epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init
    inotify_init1 inotify_rm_watch poll ppoll ppoll_time64 pselect6 pselect6_time64 select
    signalfd signalfd4
";

const MEMORY: &str = "
    brk madvise map_shadow_stack membarrier mincore mlock mlock2 mlockall mmap mmap2 mprotect
    mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
    remap_file_pages
";

const PROCESSES: &str = "
    execve execveat exit exit_group fork get_robust_list get_thread_area getcpu getpgid getpgrp
    getpid getppid getrandom getsid gettid landlock_add_rule landlock_create_ruleset
    landlock_restrict_self pidfd_open pidfd_send_signal prctl process_mrelease process_vm_readv
    process_vm_writev ptrace restart_syscall riscv_hwprobe rseq seccomp set_robust_list
    set_thread_area set_tid_address setpgid setsid sysinfo uname uretprobe vfork wait4 waitid
    waitpid
";

const IDENTITY: &str = "
    capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32
    getresgid getresgid32 getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid
    setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid setresgid32
    setresuid setresuid32 setreuid setreuid32 setuid setuid32
";

const SCHEDULING: &str = "
    futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake getpriority getrlimit
    getrusage ioprio_get ioprio_set prlimit64 sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
    sched_yield setpriority setrlimit ugetrlimit
";

const SIGNALS: &str = "
    kill pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask
    sigreturn tgkill tkill
";

/// Reading clocks and timers. `adjtimex` and its kin read too, and the kernel asks for
/// CAP_SYS_TIME when they are to set something.
const TIME: &str = "
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep
    setitimer time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64
    timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
    timerfd_settime64 times
";

/// Sockets but for their making, which has a condition, and System V and POSIX queues.
const TALKING: &str = "
    accept accept4 bind connect getpeername getsockname getsockopt ipc listen mq_getsetattr
    mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
    mq_unlink msgctl msgget msgrcv msgsnd recv recvfrom recvmmsg recvmmsg_time64 recvmsg semctl
    semget semop semtimedop semtimedop_time64 send sendmmsg sendmsg sendto setsockopt shmat shmctl
    shmdt shmget shutdown socketcall socketpair
";

/// Only where the architecture has need of them.
#[cfg(target_arch = "x86_64")]
pub(super) const OF_ARCHITECTURE: &str = "
    arch_prctl modify_ldt
";
/// Only where the architecture has need of them.
#[cfg(target_arch = "aarch64")]
pub(super) const OF_ARCHITECTURE: &str = "
    arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2
";

/// With a capability in the bounding set.
pub(super) const BY_CAPABILITY: [(&str, &str); 14] = [
    ("CAP_BPF", "bpf"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_PERFMON", "perf_event_open"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_SYS_ADMIN", ADMINISTRATION),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
];

const ADMINISTRATION: &str = "
    bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
    lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open
    quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare
";
