//! The options of a mount, as fstab mixes them: attributes, propagation, and the filesystem's own.

use berth_sys::mount::{Change, Propagation};
use rustix::mount::MountAttrFlags;

/// The options of one mount, sorted by who applies them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MountOptions {
    /// It binds what is there already; whether with the mounts below.
    pub(super) bind: Option<bool>,
    /// Attributes of the mount itself.
    own: Attributes,
    /// Attributes of the mounts below it too.
    recursive: Attributes,
    /// The propagation, and whether of the mounts below too.
    pub(super) propagation: Option<(Propagation, bool)>,
    /// The owners of its files are mapped; whether in the mounts below too.
    pub(super) idmap: Option<bool>,
    /// It begins with what it covers.
    pub(super) copy_up: bool,
    /// What the filesystem is asked to do.
    pub(super) data: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attributes {
    set: MountAttrFlags,
    clear: MountAttrFlags,
}

impl Default for Attributes {
    fn default() -> Self {
        Self { set: MountAttrFlags::empty(), clear: MountAttrFlags::empty() }
    }
}

impl Attributes {
    fn add(&mut self, attribute: Attribute) {
        let (flag, on) = attribute;
        if ACCESS_TIMES.contains(flag) || flag.is_empty() {
            // One of several values of a field: the field is cleared before.
            self.set.remove(ACCESS_TIMES);
            self.clear.insert(ACCESS_TIMES);
            self.set.insert(flag);
        } else if on {
            self.set.insert(flag);
            self.clear.remove(flag);
        } else {
            self.clear.insert(flag);
            self.set.remove(flag);
        }
    }

    fn is_empty(&self) -> bool {
        self.set.is_empty() && self.clear.is_empty()
    }
}

/// A flag, and whether it is set or cleared.
type Attribute = (MountAttrFlags, bool);

/// The values of the field that says when times of access are written; none of them is `relatime`.
const ACCESS_TIMES: MountAttrFlags = MountAttrFlags::MOUNT_ATTR__ATIME;

fn attribute(option: &str) -> Option<Attribute> {
    Some(match option {
        "ro" => (MountAttrFlags::MOUNT_ATTR_RDONLY, true),
        "rw" => (MountAttrFlags::MOUNT_ATTR_RDONLY, false),
        "nosuid" => (MountAttrFlags::MOUNT_ATTR_NOSUID, true),
        "suid" => (MountAttrFlags::MOUNT_ATTR_NOSUID, false),
        "nodev" => (MountAttrFlags::MOUNT_ATTR_NODEV, true),
        "dev" => (MountAttrFlags::MOUNT_ATTR_NODEV, false),
        "noexec" => (MountAttrFlags::MOUNT_ATTR_NOEXEC, true),
        "exec" => (MountAttrFlags::MOUNT_ATTR_NOEXEC, false),
        "nodiratime" => (MountAttrFlags::MOUNT_ATTR_NODIRATIME, true),
        "diratime" => (MountAttrFlags::MOUNT_ATTR_NODIRATIME, false),
        "nosymfollow" => (MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW, true),
        "symfollow" => (MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW, false),
        "noatime" => (MountAttrFlags::MOUNT_ATTR_NOATIME, true),
        "strictatime" => (MountAttrFlags::MOUNT_ATTR_STRICTATIME, true),
        "atime" | "relatime" | "norelatime" | "nostrictatime" => (MountAttrFlags::empty(), true),
        _ => return None,
    })
}

/// The propagation that `name` stands for, and whether it is meant for the mounts below too.
pub(super) fn propagation(name: &str) -> Option<(Propagation, bool)> {
    Some(match name {
        "shared" => (Propagation::Shared, false),
        "rshared" => (Propagation::Shared, true),
        "slave" => (Propagation::Slave, false),
        "rslave" => (Propagation::Slave, true),
        "private" => (Propagation::Private, false),
        "rprivate" => (Propagation::Private, true),
        "unbindable" => (Propagation::Unbindable, false),
        "runbindable" => (Propagation::Unbindable, true),
        _ => return None,
    })
}

impl MountOptions {
    /// Sorts `options`. Where two contradict each other, the later one counts.
    pub(super) fn parse(options: &[String]) -> Self {
        let mut parsed = Self::default();
        for option in options {
            parsed.add(option);
        }
        parsed
    }

    fn add(&mut self, option: &str) {
        if let Some(attribute) = attribute(option) {
            self.own.add(attribute);
        } else if let Some(propagation) = propagation(option) {
            self.propagation = Some(propagation);
        } else if let Some(attribute) = option.strip_prefix('r').and_then(attribute) {
            self.recursive.add(attribute);
        } else {
            match option {
                "bind" => self.bind = Some(self.bind.unwrap_or(false)),
                "rbind" => self.bind = Some(true),
                "defaults" | "remount" | "" => {}
                "tmpcopyup" => self.copy_up = true,
                "idmap" => self.idmap = Some(self.idmap.unwrap_or(false)),
                "ridmap" => self.idmap = Some(true),
                data => self.data.push(data.to_owned()),
            }
        }
    }

    /// The attributes that a new filesystem is mounted with.
    pub(super) fn attributes(&self) -> MountAttrFlags {
        self.own.set | self.recursive.set
    }

    /// The changes that make a bind mount what is asked for, in their order.
    pub(super) fn changes(&self) -> impl Iterator<Item = Change> {
        let change = |attributes: Attributes, recursive| {
            let Attributes { set, clear } = attributes;
            (!attributes.is_empty()).then_some(Change { set, clear, propagation: None, recursive })
        };
        [change(self.own, false), change(self.recursive, true)].into_iter().flatten()
    }

    /// The change of propagation that is asked for.
    pub(super) fn propagation_change(&self) -> Option<Change> {
        let (propagation, recursive) = self.propagation?;
        Some(Change { propagation: Some(propagation), recursive, ..Change::default() })
    }

    /// Whether it is to be read-only.
    pub(super) fn read_only(&self) -> bool {
        self.attributes().contains(MountAttrFlags::MOUNT_ATTR_RDONLY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &str) -> MountOptions {
        let options: Vec<String> = options.split(',').map(str::to_owned).collect();
        MountOptions::parse(&options)
    }

    #[test]
    fn options_are_sorted() {
        let parsed = parse("nosuid,mode=755,ro,rw,size=64k,rslave");
        assert_eq!(parsed.data, ["mode=755", "size=64k"]);
        assert_eq!(parsed.attributes(), MountAttrFlags::MOUNT_ATTR_NOSUID);
        assert_eq!(parsed.propagation, Some((Propagation::Slave, true)));
        assert_eq!(parsed.bind, None);
    }

    #[test]
    fn recursive_attributes_are_kept_apart() {
        let parsed = parse("rbind,rro,noexec,noatime");
        assert_eq!(parsed.bind, Some(true));
        let changes: Vec<Change> = parsed.changes().collect();
        assert_eq!(changes.len(), 2);
        assert!(changes[0].clear.contains(ACCESS_TIMES));
        assert_eq!(changes[1].set, MountAttrFlags::MOUNT_ATTR_RDONLY);
        assert!(changes[1].recursive && !changes[0].recursive);
        assert!(parsed.read_only());
    }
}
