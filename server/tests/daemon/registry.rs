//! A real registry on loopback, for the length of a test.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// Debian's `docker-registry`, without TLS and authentication.
pub(crate) struct Registry {
    process: Child,
    /// `localhost:PORT`.
    pub(crate) host: String,
    _directory: TempDir,
}

impl Registry {
    /// Starts a registry that is empty.
    pub(crate) fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\"}}\n",
            directory.path().display()
        );
        let file = directory.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut registry =
            Self { process, host: format!("localhost:{port}"), _directory: directory };
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(registry.process.try_wait().unwrap().is_none(), "the registry ended");
            thread::sleep(Duration::from_millis(20));
        }
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
