//! As whom a process runs: user, groups, capabilities.
//!
//! The way there has two stops, because looking for the program must happen with the final rights
//! while installing a system call filter may need `CAP_SYS_ADMIN`: [`Identity::assume`] leaves
//! that one permitted if so, and [`Identity::complete`] drops it.

use berth_sys::capability::{self, Set, Sets};
use berth_types::spec::{self, Capabilities};
use berth_types::{Error, Result, ResultExt};
use rustix::fs::{Gid, Mode, Uid};
use rustix::thread;

use super::account::Account;

/// The checked `process.user` and `process.capabilities`.
#[derive(Debug)]
pub(super) struct Identity {
    /// The user, which may be a name.
    pub(super) user: spec::User,
    umask: u32,
    bounding: Set,
    ambient: Set,
    sets: Sets,
    /// The program can't gain rights by executing a file.
    pub(super) no_new_privileges: bool,
}

impl Identity {
    /// Checks who `process` runs as. Capabilities with names that are unknown are left out.
    pub(super) fn check(process: &spec::Process) -> Result<Self> {
        let spec::User { uid, gid, umask, additional_gids, .. } = &process.user;
        // 2^31 and above are "no id" to some interfaces and wrap in others.
        let further = additional_gids.iter().map(|gid| ("additionalGids", gid));
        for (field, id) in [("uid", uid), ("gid", gid)].into_iter().chain(further) {
            if *id > i32::MAX as u32 {
                let message = format!("process.user.{field}: {id} is above {}", i32::MAX);
                return Err(Error::invalid_argument(message));
            }
        }
        let none = Capabilities::default();
        let capabilities = process.capabilities.as_ref().unwrap_or(&none);
        Ok(Self {
            user: process.user.clone(),
            umask: umask.unwrap_or(0o022) & 0o777,
            bounding: set(&capabilities.bounding),
            ambient: set(&capabilities.ambient),
            sets: Sets {
                effective: set(&capabilities.effective),
                permitted: set(&capabilities.permitted),
                inheritable: set(&capabilities.inheritable),
            },
            no_new_privileges: process.no_new_privileges,
        })
    }

    /// Gives the standard streams to the user, who may want to open them again by
    /// `/dev/stdout`. What can't be given away stays.
    pub(super) fn own_streams(account: &Account) {
        let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        for stream in streams {
            let Ok(stat) = rustix::fs::fstat(stream) else { continue };
            let null = rustix::fs::makedev(1, 3);
            if stat.st_uid != account.uid && stat.st_rdev != null {
                let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(account.uid)), None);
            }
        }
    }

    /// Becomes the user of `account` with the rights it is to have, and with `keep` permitted besides.
    pub(super) fn assume(&self, account: &Account, keep: Set) -> Result<()> {
        capability::bound(self.bounding).context(|| "drop capabilities from the bounding set")?;
        if self.no_new_privileges {
            thread::set_no_new_privs(true)
                .map_err(std::io::Error::from)
                .context(|| "set no_new_privs")?;
        }
        change_user(account)
            .map_err(std::io::Error::from)
            .context(|| format!("become user {} with group {}", account.uid, account.gid))?;
        let sets = Sets { permitted: self.sets.permitted | keep, ..self.permissible()? };
        let permitted = sets.permitted & held()?;
        Sets { permitted, ..sets }.apply().context(|| "set capabilities")?;
        capability::set_ambient(self.ambient & permitted & sets.inheritable)
            .context(|| "set ambient capabilities")?;
        rustix::process::umask(Mode::from_raw_mode(self.umask));
        Ok(())
    }

    /// Makes `extra` effective, which [`Identity::assume`] was told to keep.
    pub(super) fn raise(&self, extra: Set) -> Result<()> {
        let sets = self.permissible()?;
        Sets {
            effective: sets.effective | extra,
            permitted: sets.permitted | extra,
            inheritable: sets.inheritable,
        }
        .apply()
        .context(|| "raise capabilities")
    }

    /// Drops whatever was kept.
    pub(super) fn complete(&self) -> Result<()> {
        self.permissible()?.apply().context(|| "set capabilities")
    }

    /// The wanted sets without what the shim itself doesn't have: it can't give that.
    fn permissible(&self) -> Result<Sets> {
        let held = held()?;
        let permitted = self.sets.permitted & held;
        Ok(Sets {
            effective: self.sets.effective & permitted,
            permitted,
            inheritable: self.sets.inheritable & held,
        })
    }
}

fn change_user(account: &Account) -> rustix::io::Result<()> {
    let groups: Vec<Gid> = account.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    thread::set_keep_capabilities(true)?;
    thread::set_thread_groups(&groups)?;
    thread::set_thread_res_gid(gid, gid, gid)?;
    thread::set_thread_res_uid(uid, uid, uid)?;
    thread::set_keep_capabilities(false)
}

fn held() -> Result<Set> {
    Set::permitted().context(|| "read the permitted capabilities")
}

/// The capabilities called `names`. The specification wants a warning for one that is unknown, as
/// a newer kernel's is here.
fn set(names: &[String]) -> Set {
    let known = |name: &String| {
        let set = Set::named(name);
        if set.is_none() {
            tracing::warn!("process.capabilities: {name:?} is unknown and left out");
        }
        set
    };
    names.iter().filter_map(known).fold(Set::NONE, |all, one| all | one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_capabilities_are_left_out_and_huge_ids_refused() {
        let names = ["CAP_FLY".to_owned(), "CAP_SYS_ADMIN".to_owned()];
        assert_eq!(set(&names), Set::SYS_ADMIN);
        let user = spec::User { uid: 1 << 31, ..spec::User::default() };
        let process = spec::Process { user, ..spec::Process::default() };
        assert!(Identity::check(&process).is_err());
    }
}
