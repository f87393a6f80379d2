//! `process.rlimits`.

use berth_sys::rlimit;
use berth_types::spec::Rlimit;
use berth_types::{Error, Result, ResultExt};
use rustix::process::Resource;

/// The checked resource limits of a process.
#[derive(Debug)]
pub(super) struct Limits(Vec<Limit>);

#[derive(Debug)]
struct Limit {
    name: String,
    resource: Resource,
    soft: u64,
    hard: u64,
}

impl Limits {
    /// Checks the list.
    pub(super) fn check(list: &[Rlimit]) -> Result<Self> {
        let mut limits: Vec<Limit> = Vec::with_capacity(list.len());
        for Rlimit { kind, hard, soft } in list {
            let invalid = |why| Error::invalid_argument(format!("process.rlimits: {kind:?} {why}"));
            let resource = rlimit::parse(kind).ok_or_else(|| invalid("is no resource limit"))?;
            if soft > hard {
                return Err(invalid("has a soft limit above its hard one"));
            }
            if limits.iter().any(|limit| limit.name == *kind) {
                return Err(invalid("is given twice"));
            }
            limits.push(Limit { name: kind.clone(), resource, soft: *soft, hard: *hard });
        }
        Ok(Self(limits))
    }

    /// Makes them the caller's; `warn` hears of those that had to be lower.
    pub(super) fn apply(&self, warn: impl Fn(String)) -> Result<()> {
        for Limit { name, resource, soft, hard } in &self.0 {
            let clamped = rlimit::set_or_clamp(*resource, *soft, *hard)
                .context(|| format!("set process.rlimits {name}"))?;
            if let Some(ceiling) = clamped {
                warn(format!(
                    "{name} is {ceiling} and not {hard}: raising it takes CAP_SYS_RESOURCE, or \
                     that limit for who starts the container"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(kind: &str, soft: u64, hard: u64) -> Rlimit {
        Rlimit { kind: kind.into(), soft, hard }
    }

    #[test]
    fn what_can_not_be_is_refused() {
        assert!(Limits::check(&[limit("RLIMIT_NOFILE", 1, 2)]).is_ok());
        assert!(Limits::check(&[limit("RLIMIT_NOFILE", 2, 1)]).is_err());
        assert!(Limits::check(&[limit("RLIMIT_FILES", 1, 2)]).is_err());
        let twice = [limit("RLIMIT_CPU", 1, 2), limit("RLIMIT_CPU", 1, 2)];
        assert!(Limits::check(&twice).is_err());
    }
}
