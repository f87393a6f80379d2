//! What every snapshotter does, whatever it keeps layers in. Each behaviour is one function; an
//! implementation's test calls [`all`] with a way to open itself on an empty directory.

// A suite fails by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_types::{Fault, Kind as Failure};
use rustix::mount::{MountAttrFlags, UnmountFlags};
use tempfile::TempDir;

use crate::{CommitOptions, Kind, Mount, PrepareOptions, Snapshotter};

/// Opens the snapshotter under test on a directory.
pub type Open = fn(&Path) -> Arc<dyn Snapshotter>;

/// A directory that goes with all that is mounted below it.
pub struct Scratch(TempDir);

impl Scratch {
    /// Makes one.
    pub fn new() -> Self {
        Self(TempDir::new().expect("a directory"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// What is mounted below it.
    pub fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let targets = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        targets.filter(|target| target.starts_with(self.path())).collect()
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for target in self.mounts() {
            let _ = rustix::mount::unmount(&target, UnmountFlags::DETACH);
        }
    }
}

/// A snapshotter on scratch, and a place to mount.
struct Case {
    // First, so that it is closed when the scratch goes.
    snapshotter: Arc<dyn Snapshotter>,
    directory: Scratch,
}

/// Runs the whole suite.
pub async fn all(open: Open) {
    layers_stack(&Case::new(open)).await;
    a_directory_made_anew_hides_the_old(&Case::new(open)).await;
    metadata_comes_through(&Case::new(open)).await;
    the_root_keeps_its_owner_and_mode(&Case::new(open)).await;
    a_view_can_not_be_written(&Case::new(open)).await;
    keys_are_unique(&Case::new(open)).await;
    only_committed_snapshots_are_parents(&Case::new(open)).await;
    a_parent_stays_while_it_has_children(&Case::new(open)).await;
    several_go_at_once(&Case::new(open)).await;
    a_commit_takes_its_key_away(&Case::new(open)).await;
    let case = Case::new(open);
    if case.snapshotter.rebases() {
        the_parent_can_be_named_at_commit(&case).await;
    }
    usage_counts_each_inode_once(&Case::new(open)).await;
    labels_are_replaced(&Case::new(open)).await;
    lists_go_by_prefix(&Case::new(open)).await;
    many_layers_mount(&Case::new(open)).await;
    damage_is_told_and_replaced(&Case::new(open)).await;
    strays_are_told_and_removed(&Case::new(open)).await;
    records_outlive_the_snapshotter(open).await;
}

impl Case {
    fn new(open: Open) -> Self {
        let directory = Scratch::new();
        fs::create_dir(directory.path().join("mnt")).unwrap();
        Self { snapshotter: open(&directory.path().join("snapshots")), directory }
    }

    /// Where the snapshots' directories are.
    fn own(&self) -> PathBuf {
        self.directory.path().join("snapshots").join(self.snapshotter.name())
    }

    async fn prepare(&self, key: &str, parent: &str) -> Vec<Mount> {
        self.snapshotter.prepare(key, parent, PrepareOptions::default()).await.expect("prepare")
    }

    async fn commit(&self, name: &str, key: &str) {
        self.snapshotter.commit(name, key, CommitOptions::default()).await.expect("commit");
    }

    /// Commits a layer that `change` makes on `parent`.
    async fn layer(&self, name: &str, parent: &str, change: impl FnOnce(&Path)) {
        let key = format!("extract-{name}");
        let mounts = self.prepare(&key, parent).await;
        self.mounted(&mounts, change);
        self.commit(name, &key).await;
    }

    fn mounted<T>(&self, mounts: &[Mount], look: impl FnOnce(&Path) -> T) -> T {
        let target = self.directory.path().join("mnt");
        for mount in mounts {
            mount_at(&target, mount);
        }
        let seen = look(&target);
        for _ in mounts {
            rustix::mount::unmount(&target, UnmountFlags::empty()).unwrap();
        }
        seen
    }
}

/// Mounts by the kernel's newer calls, which take any number of layers.
fn mount_at(target: &Path, mount: &Mount) {
    let options: Vec<&str> = mount.options.iter().map(String::as_str).collect();
    let tree = match mount.kind.as_str() {
        "overlay" => berth_sys::mount::overlay(&options, MountAttrFlags::empty()).unwrap().unwrap(),
        _ => berth_sys::mount::copy_path(&mount.source, true).unwrap(),
    };
    if options.contains(&"ro") {
        let set = MountAttrFlags::MOUNT_ATTR_RDONLY;
        let change = berth_sys::mount::Change { set, ..Default::default() };
        change.apply(tree.as_fd()).unwrap();
    }
    let target = fs::File::open(target).unwrap();
    berth_sys::mount::attach(tree.as_fd(), target.as_fd()).unwrap();
}

async fn layers_stack(case: &Case) {
    case.layer("one", "", |root| {
        fs::write(root.join("kept"), "one").unwrap();
        fs::write(root.join("changed"), "one").unwrap();
        fs::write(root.join("removed"), "one").unwrap();
    })
    .await;
    case.layer("two", "one", |root| {
        fs::write(root.join("changed"), "two").unwrap();
        fs::remove_file(root.join("removed")).unwrap();
    })
    .await;
    let mounts = case.prepare("top", "two").await;
    case.mounted(&mounts, |root| {
        assert_eq!(fs::read_to_string(root.join("kept")).unwrap(), "one");
        assert_eq!(fs::read_to_string(root.join("changed")).unwrap(), "two");
        assert!(!root.join("removed").exists());
        fs::write(root.join("kept"), "top").unwrap();
    });
    let again = case.prepare("other", "two").await;
    case.mounted(&again, |root| {
        assert_eq!(fs::read_to_string(root.join("kept")).unwrap(), "one", "siblings are apart");
    });
    assert_eq!(case.snapshotter.mounts("top").await.unwrap(), mounts);
}

async fn a_directory_made_anew_hides_the_old(case: &Case) {
    case.layer("one", "", |root| {
        fs::create_dir_all(root.join("directory/below")).unwrap();
        fs::write(root.join("directory/old"), "one").unwrap();
        fs::write(root.join("file"), "one").unwrap();
    })
    .await;
    case.layer("two", "one", |root| {
        fs::remove_dir_all(root.join("directory")).unwrap();
        fs::create_dir(root.join("directory")).unwrap();
        fs::write(root.join("directory/new"), "two").unwrap();
        fs::remove_file(root.join("file")).unwrap();
        fs::create_dir(root.join("file")).unwrap();
    })
    .await;
    let mounts = case.prepare("top", "two").await;
    case.mounted(&mounts, |root| {
        let names = fs::read_dir(root.join("directory")).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["new"]);
        assert!(root.join("file").is_dir());
    });
}

async fn metadata_comes_through(case: &Case) {
    case.layer("one", "", |root| {
        fs::write(root.join("file"), "one").unwrap();
        fs::hard_link(root.join("file"), root.join("link")).unwrap();
        chown(root.join("file"), Some(7), Some(8)).unwrap();
        fs::create_dir(root.join("directory")).unwrap();
    })
    .await;
    case.layer("two", "one", |root| {
        let mode = fs::Permissions::from_mode(0o1770);
        fs::set_permissions(root.join("directory"), mode).unwrap();
        chown(root.join("directory"), Some(9), Some(10)).unwrap();
    })
    .await;
    let mounts = case.prepare("top", "two").await;
    case.mounted(&mounts, |root| {
        let file = root.join("file").metadata().unwrap();
        assert_eq!((file.uid(), file.gid(), file.nlink()), (7, 8, 2));
        let directory = root.join("directory").metadata().unwrap();
        assert_eq!((directory.uid(), directory.gid()), (9, 10));
        assert_eq!(directory.mode() & 0o7777, 0o1770);
    });
}

async fn the_root_keeps_its_owner_and_mode(case: &Case) {
    case.layer("one", "", |root| {
        let fresh = root.metadata().unwrap();
        assert_eq!((fresh.uid(), fresh.gid(), fresh.mode() & 0o7777), (0, 0, 0o755));
        chown(root, Some(7), Some(8)).unwrap();
        fs::set_permissions(root, fs::Permissions::from_mode(0o1751)).unwrap();
    })
    .await;
    let mounts = case.prepare("top", "one").await;
    case.mounted(&mounts, |root| {
        let root = root.metadata().unwrap();
        assert_eq!((root.uid(), root.gid(), root.mode() & 0o7777), (7, 8, 0o1751));
    });
}

async fn a_view_can_not_be_written(case: &Case) {
    case.layer("one", "", |root| fs::write(root.join("file"), "one").unwrap()).await;
    case.layer("two", "one", |root| fs::write(root.join("more"), "two").unwrap()).await;
    for (key, parent) in [("view-1", "one"), ("view-2", "two")] {
        let mounts =
            case.snapshotter.view(key, parent, PrepareOptions::default()).await.expect("view");
        case.mounted(&mounts, |root| {
            assert!(root.join("file").exists());
            assert!(fs::write(root.join("new"), "").is_err());
        });
        let committed = case.snapshotter.commit("three", key, CommitOptions::default()).await;
        assert_eq!(committed.unwrap_err().kind(), Failure::FailedPrecondition);
    }
}

async fn keys_are_unique(case: &Case) {
    case.layer("one", "", |_| {}).await;
    case.prepare("active", "").await;
    for key in ["one", "active"] {
        let again = case.snapshotter.prepare(key, "", PrepareOptions::default()).await;
        assert_eq!(again.unwrap_err().kind(), Failure::AlreadyExists);
    }
    let onto = case.snapshotter.commit("one", "active", CommitOptions::default()).await;
    assert_eq!(onto.unwrap_err().kind(), Failure::AlreadyExists);
    assert_eq!(case.snapshotter.stat("active").await.unwrap().kind, Kind::Active);
}

async fn only_committed_snapshots_are_parents(case: &Case) {
    case.prepare("active", "").await;
    let on_active = case.snapshotter.prepare("a", "active", PrepareOptions::default()).await;
    assert_eq!(on_active.unwrap_err().kind(), Failure::InvalidArgument);
    let on_nothing = case.snapshotter.prepare("a", "nothing", PrepareOptions::default()).await;
    assert_eq!(on_nothing.unwrap_err().kind(), Failure::NotFound);
    assert_eq!(case.snapshotter.stat("a").await.unwrap_err().kind(), Failure::NotFound);
}

async fn a_parent_stays_while_it_has_children(case: &Case) {
    case.layer("one", "", |_| {}).await;
    case.prepare("child", "one").await;
    let kind = case.snapshotter.remove("one").await.unwrap_err().kind();
    assert_eq!(kind, Failure::FailedPrecondition);
    case.snapshotter.remove("child").await.unwrap();
    case.snapshotter.remove("one").await.unwrap();
    let kind = case.snapshotter.remove("one").await.unwrap_err().kind();
    assert_eq!(kind, Failure::NotFound);
    assert!(case.snapshotter.list("").await.unwrap().is_empty());
}

async fn several_go_at_once(case: &Case) {
    case.layer("a", "", |_| {}).await;
    case.layer("b", "a", |root| fs::write(root.join("file"), "b").unwrap()).await;
    case.layer("used", "a", |_| {}).await;
    case.prepare("work", "used").await;
    let keys = ["b", "nothing", "used", "a"].map(str::to_owned);
    let results = case.snapshotter.remove_all(&keys).await;
    let kinds: Vec<_> = results.into_iter().map(|result| result.map_err(|e| e.kind())).collect();
    let in_use = Err(Failure::FailedPrecondition);
    assert_eq!(kinds, [Ok(()), Err(Failure::NotFound), in_use, in_use]);
    let left = case.snapshotter.list("").await.unwrap();
    assert_eq!(
        left.iter().map(|info| info.key.as_str()).collect::<Vec<_>>(),
        ["a", "used", "work"]
    );
    let keys = ["work", "used", "a"].map(str::to_owned);
    assert!(case.snapshotter.remove_all(&keys).await.iter().all(Result::is_ok));
    assert!(case.snapshotter.list("").await.unwrap().is_empty());
}

async fn a_commit_takes_its_key_away(case: &Case) {
    case.layer("one", "", |_| {}).await;
    let stat = case.snapshotter.stat("extract-one").await;
    assert_eq!(stat.unwrap_err().kind(), Failure::NotFound);
    assert_eq!(case.snapshotter.stat("one").await.unwrap().kind, Kind::Committed);
    let mounts = case.snapshotter.mounts("one").await;
    assert_eq!(mounts.unwrap_err().kind(), Failure::FailedPrecondition);
}

async fn the_parent_can_be_named_at_commit(case: &Case) {
    case.layer("one", "", |root| fs::write(root.join("low"), "one").unwrap()).await;
    let mounts = case.prepare("apart", "").await;
    case.mounted(&mounts, |root| fs::write(root.join("high"), "two").unwrap());
    let options = CommitOptions { parent: Some("one".to_owned()), ..CommitOptions::default() };
    case.snapshotter.commit("two", "apart", options).await.unwrap();
    assert_eq!(case.snapshotter.stat("two").await.unwrap().parent, "one");
    let mounts = case.prepare("top", "two").await;
    case.mounted(&mounts, |root| {
        assert!(root.join("low").exists() && root.join("high").exists());
    });
    let removed = case.snapshotter.remove("one").await.unwrap_err();
    assert_eq!(removed.kind(), Failure::FailedPrecondition);
    let options = CommitOptions { parent: Some("one".to_owned()), ..CommitOptions::default() };
    let moved = case.snapshotter.commit("three", "top", options).await.unwrap_err();
    assert_eq!(moved.kind(), Failure::FailedPrecondition);
}

async fn usage_counts_each_inode_once(case: &Case) {
    let empty = case.prepare("empty", "").await;
    case.mounted(&empty, |_| {});
    let before = case.snapshotter.usage("empty").await.unwrap();
    case.layer("one", "", |root| {
        fs::write(root.join("file"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(root.join("file"), root.join("link")).unwrap();
        fs::create_dir(root.join("directory")).unwrap();
    })
    .await;
    let usage = case.snapshotter.usage("one").await.unwrap();
    assert_eq!(usage.inodes, before.inodes + 2);
    assert!(usage.size >= 1 << 20 && usage.size < (1 << 20) + (64 << 10), "{usage:?}");
}

async fn labels_are_replaced(case: &Case) {
    case.layer("one", "", |_| {}).await;
    let change = Box::new(|labels: &mut berth_types::labels::Labels| {
        labels.insert("key".to_owned(), "value".to_owned());
    });
    let info = case.snapshotter.update("one", change).await.unwrap();
    assert_eq!(info.labels["key"], "value");
    assert_eq!(case.snapshotter.stat("one").await.unwrap(), info);
}

async fn lists_go_by_prefix(case: &Case) {
    for key in ["a/1", "a/2", "ab/1", "b/1"] {
        case.prepare(key, "").await;
    }
    let keys = |infos: Vec<crate::Info>| infos.into_iter().map(|info| info.key).collect::<Vec<_>>();
    assert_eq!(keys(case.snapshotter.list("a/").await.unwrap()), ["a/1", "a/2"]);
    assert_eq!(case.snapshotter.list("").await.unwrap().len(), 4);
}

/// Docker's limit of layers.
async fn many_layers_mount(case: &Case) {
    stack(case.snapshotter.as_ref(), 128).await;
    let mounts = case.prepare("top", "layer-127").await;
    case.mounted(&mounts, |root| {
        for number in 0..128 {
            assert!(root.join(number.to_string()).exists());
        }
        assert_eq!(fs::read_to_string(root.join("shared")).unwrap(), "127");
    });
}

/// Commits `layer-0`, `layer-1` and so on, each on the one before: each has a file named by its
/// number, and the file `shared` that holds it.
pub async fn stack(snapshotter: &dyn Snapshotter, count: u32) {
    let mut parent = String::new();
    for number in 0..count {
        let key = format!("extract-{number}");
        let below = if snapshotter.rebases() { "" } else { parent.as_str() };
        snapshotter.prepare(&key, below, PrepareOptions::default()).await.unwrap();
        let changes = snapshotter.changes(&key).await.unwrap();
        fs::write(changes.join(number.to_string()), "").unwrap();
        fs::write(changes.join("shared"), number.to_string()).unwrap();
        let name = format!("layer-{number}");
        let parent_at_commit = Some(parent).filter(|parent| !parent.is_empty());
        let options =
            CommitOptions { parent: parent_at_commit, synced: true, ..CommitOptions::default() };
        snapshotter.commit(&name, &key, options).await.unwrap();
        parent = name;
    }
}

async fn damage_is_told_and_replaced(case: &Case) {
    let fill = |root: &Path| fs::write(root.join("file"), "data").unwrap();
    case.layer("one", "", fill).await;
    case.layer("two", "one", fill).await;
    case.layer("other", "two", fill).await;
    let check = async |key| case.snapshotter.check(key).await.unwrap();
    for key in ["one", "two", "nothing"] {
        assert_eq!(check(key).await, None, "{key}");
    }
    let kept = case.own().join("1");
    for (name, remove) in
        [("fs", fs::remove_dir_all as fn(_) -> _), ("layer.erofs", fs::remove_file)]
    {
        let path = kept.join(name);
        if path.exists() {
            remove(path).unwrap();
        }
    }
    assert_eq!(check("one").await, Some(Fault::Missing));
    case.layer("again", "", fill).await;
    let refused = case.snapshotter.replace("one", "other").await.unwrap_err();
    assert_eq!(refused.kind(), Failure::FailedPrecondition);
    case.snapshotter.replace("one", "again").await.unwrap();
    for key in ["one", "two", "other"] {
        assert_eq!(check(key).await, None, "{key}");
    }
    assert_eq!(case.snapshotter.stat("again").await.unwrap_err().kind(), Failure::NotFound);
    assert!(!kept.exists());
    let mounts = case.snapshotter.view("view", "one", PrepareOptions::default()).await.unwrap();
    let seen = case.mounted(&mounts, |root| fs::read_to_string(root.join("file")).unwrap());
    assert_eq!(seen, "data");
}

async fn strays_are_told_and_removed(case: &Case) {
    case.layer("one", "", |_| ()).await;
    case.prepare("active", "one").await;
    assert!(case.snapshotter.strays().await.unwrap().is_empty());
    fs::create_dir_all(case.own().join("77/fs")).unwrap();
    let mut strays = vec![case.own().join("77")];
    for name in ["1/other", "078", "readme"] {
        fs::write(case.own().join(name), "").unwrap();
        strays.push(case.own().join(name));
    }
    let mut found = case.snapshotter.strays().await.unwrap();
    found.sort();
    strays.sort();
    assert_eq!(found, strays);
    case.snapshotter.remove_strays().await.unwrap();
    assert!(case.snapshotter.strays().await.unwrap().is_empty());
    for key in ["one", "active"] {
        assert_eq!(case.snapshotter.check(key).await.unwrap(), None, "{key}");
    }
}

async fn records_outlive_the_snapshotter(open: Open) {
    let case = Case::new(open);
    case.layer("one", "", |root| fs::write(root.join("file"), "one").unwrap()).await;
    case.prepare("active", "one").await;
    let Case { snapshotter, directory } = case;
    let before = snapshotter.list("").await.unwrap();
    drop(snapshotter);
    let case = Case { snapshotter: open(&directory.path().join("snapshots")), directory };
    assert_eq!(case.snapshotter.list("").await.unwrap(), before);
    let mounts = case.snapshotter.mounts("active").await.unwrap();
    case.mounted(&mounts, |root| assert!(root.join("file").exists()));
    case.prepare("new", "one").await;
}
