//! A container's own files outside its root.
//!
//! ```text
//! ROOT/containers/NAMESPACE/ID/
//!   ID-json.log        what its init wrote; older parts beside it
//!   hostname, hosts, resolv.conf   bound over /etc/… of the container
//! ```

use std::fs::{self, DirBuilder};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use berth_types::spec::Bind;
use berth_types::{Result, ResultExt};

/// The largest `/etc/resolv.conf` or `/etc/hosts` of the host that is copied, in bytes.
const COPY_LIMIT: u64 = 64 << 10;

const HOSTS: &str = "127.0.0.1\tlocalhost\n\
                     ::1\tlocalhost ip6-localhost ip6-loopback\n\
                     fe00::\tip6-localnet\n\
                     ff00::\tip6-mcastprefix\n\
                     ff02::1\tip6-allnodes\n\
                     ff02::2\tip6-allrouters\n";

/// The directory of one container. The value is only a name.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    id: String,
    path: PathBuf,
}

/// All containers' directories.
fn containers(root: &Path) -> PathBuf {
    root.join("containers")
}

impl Files {
    /// Names the directory of a container.
    pub(crate) fn of(root: &Path, namespace: &str, id: &str) -> Self {
        Self { id: id.to_owned(), path: containers(root).join(namespace).join(id) }
    }

    /// The log of its init.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join(format!("{}-json.log", self.id))
    }

    /// The files that are bound into it, to be written to unless its root is `read_only`.
    pub(crate) fn binds(&self, read_only: bool) -> Vec<Bind> {
        ["hostname", "hosts", "resolv.conf"]
            .map(|name| Bind {
                source: self.path.join(name).to_string_lossy().into_owned(),
                destination: format!("/etc/{name}"),
                read_only,
            })
            .to_vec()
    }

    /// Makes the directory and what is in it, but for files that are there and have something in
    /// them: nothing waits for the disk, and so a power cut may take them from a container that is
    /// known. With the host's network a container gets the host's `/etc/hosts` too.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn create(&self, hostname: &str, host_network: bool) -> Result<()> {
        let create = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
            self.write("hostname", || format!("{hostname}\n"))?;
            self.write("hosts", || match host_network {
                true => copy_of("/etc/hosts"),
                false => HOSTS.to_owned(),
            })?;
            self.write("resolv.conf", || copy_of("/etc/resolv.conf"))
        };
        create().context(|| format!("make the directory {}", self.path.display()))
    }

    /// Writes a file that is missing or empty.
    fn write(&self, name: &str, text: impl FnOnce() -> String) -> io::Result<()> {
        let path = self.path.join(name);
        match path.symlink_metadata() {
            Ok(there) if there.len() > 0 => Ok(()),
            _ => fs::write(path, text()),
        }
    }

    /// Removes all of it. None being there is fine.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.context(|| format!("remove {}", self.path.display())),
        }
    }
}

/// A file of the host; empty where there is none that can be read.
fn copy_of(path: &str) -> String {
    let mut text = String::new();
    let read =
        fs::File::open(path).and_then(|file| file.take(COPY_LIMIT).read_to_string(&mut text));
    if let Err(error) = read {
        tracing::debug!(path, %error, "a container starts with an empty copy");
    }
    text
}

/// The namespaces and ids that have a directory. What is no directory is not the engine's.
///
/// # Errors
/// Those of the disk.
pub(crate) fn all(root: &Path) -> Result<Vec<(String, String)>> {
    let what = || format!("list {}", containers(root).display());
    let mut found = Vec::new();
    for namespace in names(&containers(root)).context(what)? {
        let ids = names(&containers(root).join(&namespace)).context(what)?;
        found.extend(ids.into_iter().map(|id| (namespace.clone(), id)));
    }
    Ok(found)
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_listed_and_removed() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(all(root.path()).unwrap(), []);
        let files = Files::of(root.path(), "default", "a");
        files.create("box", false).unwrap();
        let [hostname, hosts, _] = &files.binds(false)[..] else { panic!("three files") };
        assert_eq!(fs::read_to_string(&hostname.source).unwrap(), "box\n");
        assert!(fs::read_to_string(&hosts.source).unwrap().starts_with("127.0.0.1\tlocalhost\n"));
        // What a power cut took comes back, and nothing else is touched.
        fs::write(&hosts.source, "127.0.0.1 mine\n").unwrap();
        fs::write(&hostname.source, "").unwrap();
        files.create("box", false).unwrap();
        assert_eq!(fs::read_to_string(&hostname.source).unwrap(), "box\n");
        assert_eq!(fs::read_to_string(&hosts.source).unwrap(), "127.0.0.1 mine\n");
        fs::write(root.path().join("containers/README"), "a user's").unwrap();
        fs::write(root.path().join("containers/default/README"), "a user's").unwrap();
        assert_eq!(all(root.path()).unwrap(), [("default".to_owned(), "a".to_owned())]);
        files.remove().unwrap();
        files.remove().unwrap();
        assert_eq!(all(root.path()).unwrap(), []);
    }
}
