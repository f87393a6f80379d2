//! Resource limits (`setrlimit(2)`).

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The resource that `name`, such as `RLIMIT_NOFILE`, stands for.
pub fn parse(name: &str) -> Option<Resource> {
    Some(match name {
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_STACK" => Resource::Stack,
        _ => return None,
    })
}

/// The calling process's hard limit of `resource`, [`u64::MAX`] meaning none.
pub fn hard(resource: Resource) -> u64 {
    getrlimit(resource).maximum.unwrap_or(u64::MAX)
}

/// Raises the calling process's hard limit of `resource` to at least `wanted`, if it may, and
/// returns what it then is.
pub fn raise_hard(resource: Resource, wanted: u64) -> u64 {
    let present = getrlimit(resource);
    if hard(resource) < wanted {
        // It stays what it is without CAP_SYS_RESOURCE.
        let _ = setrlimit(resource, Rlimit { maximum: Some(wanted), ..present });
    }
    hard(resource)
}

/// Sets the calling process's limits of `resource`, [`u64::MAX`] meaning none. Where it may not
/// raise its hard limit (without `CAP_SYS_RESOURCE`), it gets as much as it may, and that hard
/// limit is returned.
///
/// # Errors
/// `EINVAL` when `soft` is above `hard`.
pub fn set_or_clamp(resource: Resource, soft: u64, hard: u64) -> io::Result<Option<u64>> {
    let limit = |value: u64| (value != u64::MAX).then_some(value);
    let wanted = Rlimit { current: limit(soft), maximum: limit(hard) };
    match setrlimit(resource, wanted) {
        Ok(()) => Ok(None),
        Err(Errno::PERM) => {
            let ceiling = getrlimit(resource).maximum.unwrap_or(u64::MAX);
            let clamped =
                Rlimit { current: limit(soft.min(ceiling)), maximum: limit(hard.min(ceiling)) };
            setrlimit(resource, clamped)?;
            Ok(Some(ceiling))
        }
        Err(errno) => Err(errno.into()),
    }
}
