//! bpf(2), as far as device filters of cgroups need it: load a program, attach it to a cgroup,
//! list and detach what is attached.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use berth_types::{Error, Result, ResultExt};

const PROG_LOAD: u32 = 5;
const PROG_ATTACH: u32 = 8;
const PROG_DETACH: u32 = 9;
const PROG_GET_FD_BY_ID: u32 = 13;
const PROG_QUERY: u32 = 16;

const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of parents and others of this cgroup stay in force: all must allow.
const ALLOW_MULTI: u32 = 2;

/// The kernel's own bound on programs attached to one cgroup.
const MAX_ATTACHED: usize = 64;

/// One eBPF instruction, as the kernel reads it (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    pub(crate) code: u8,
    /// Destination register in the low, source in the high half.
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`; a shorter structure than the kernel's is
/// one with zeroes behind.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    instruction_list: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

#[repr(C)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// Calls bpf(2).
///
/// # Safety
/// Every pointer inside `attributes` is valid for what `command` does with it.
unsafe fn bpf<T>(command: u32, attributes: &mut T) -> io::Result<i32> {
    let size = size_of::<T>();
    // SAFETY: the pointer and size describe `attributes`, which outlives the call; the caller
    // answers for the pointers inside.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes ownership of a descriptor that bpf(2) returned.
fn descriptor(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made it for us, close-on-exec as all of bpf(2), and nobody else
    // knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Loads a filter for `BPF_CGROUP_DEVICE`. The error has what the kernel's verifier says.
pub(crate) fn load_device_filter(program: &[Instruction]) -> Result<OwnedFd> {
    try_load(program, &mut []).or_else(|_| {
        let mut log = vec![0; 64 << 10];
        try_load(program, &mut log).map_err(|error| {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            let log = String::from_utf8_lossy(&log[..end]);
            Error::io(format!("load the device filter ({})", log.trim()), &error)
        })
    })
}

fn try_load(program: &[Instruction], log: &mut [u8]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut load = Load {
        kind: TYPE_CGROUP_DEVICE,
        instructions: u32::try_from(program.len()).map_err(io::Error::other)?,
        instruction_list: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).map_err(io::Error::other)?,
        log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
    };
    // SAFETY: program, license and log live through the call and have the sizes given; without
    // a log its pointer is null, as the kernel demands.
    unsafe { bpf(PROG_LOAD, &mut load) }.map(descriptor)
}

/// Puts `program` in force for the cgroup `target`, beside what is in force already.
pub(crate) fn attach_device_filter(target: BorrowedFd<'_>, program: &OwnedFd) -> Result<()> {
    let mut attach = Attach {
        target: number(target),
        program: number(program.as_fd()),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: no pointers inside.
    unsafe { bpf(PROG_ATTACH, &mut attach) }
        .map(drop)
        .context(|| "attach the device filter to the cgroup")
}

/// Takes `program` out of force.
pub(crate) fn detach_device_filter(target: BorrowedFd<'_>, program: &OwnedFd) -> Result<()> {
    let mut detach = Attach {
        target: number(target),
        program: number(program.as_fd()),
        kind: ATTACH_CGROUP_DEVICE,
        flags: 0,
    };
    // SAFETY: no pointers inside.
    unsafe { bpf(PROG_DETACH, &mut detach) }
        .map(drop)
        .context(|| "detach a device filter from the cgroup")
}

/// The device filters attached to the cgroup itself.
pub(crate) fn device_filters(target: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    let mut ids = [0u32; MAX_ATTACHED];
    let mut query = Query {
        target: number(target),
        kind: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: MAX_ATTACHED as u32,
        padding: 0,
    };
    // SAFETY: `ids` has room for `count` numbers and lives through the call.
    unsafe { bpf(PROG_QUERY, &mut query) }.context(|| "list the device filters of the cgroup")?;
    let mut found = Vec::new();
    for id in ids.iter().take(query.count as usize) {
        let mut by_id = ById { id: *id, next: 0, flags: 0 };
        // SAFETY: no pointers inside.
        match unsafe { bpf(PROG_GET_FD_BY_ID, &mut by_id) } {
            Ok(fd) => found.push(descriptor(fd)),
            // Detached meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context(|| format!("open the device filter {id}")),
        }
    }
    Ok(found)
}

/// A descriptor as the kernel's structures have it; an open one is never negative.
fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}
