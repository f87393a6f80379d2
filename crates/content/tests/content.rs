//! The content store from outside.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use berth_content::{ContentStore, Writer};
use berth_types::{Digest, Fault, Kind};

fn open() -> (tempfile::TempDir, ContentStore) {
    let root = tempfile::tempdir().unwrap();
    let store = ContentStore::open(root.path()).unwrap();
    (root, store)
}

fn put(store: &ContentStore, reference: &str, bytes: &[u8]) -> Digest {
    let mut writer = store.writer(reference, 0, None).unwrap();
    writer.write(bytes).unwrap();
    writer.commit(0, None).unwrap()
}

fn read(store: &ContentStore, digest: &Digest) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.reader(digest).unwrap().file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Everything below `directory` except directories.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn kind<T>(result: berth_types::Result<T>) -> Option<Kind> {
    result.err().map(|error| error.kind())
}

#[test]
fn a_blob_is_read_back_and_private() {
    let (root, store) = open();
    let digest = put(&store, "ref", b"bytes");
    assert_eq!(digest, Digest::of(b"bytes"));
    assert_eq!(read(&store, &digest), b"bytes");
    assert_eq!(store.info(&digest).unwrap().size, 5);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(files(root.path()).len(), 1, "the ingest is gone");
    assert_eq!(mode(&files(root.path())[0]), 0o444);
    for directory in ["content", "content/blobs", "content/blobs/sha256", "content/ingest"] {
        assert_eq!(mode(&root.path().join(directory)), 0o700, "{directory}");
    }
}

#[test]
fn an_ingest_resumes_after_the_store_was_closed() {
    let (root, store) = open();
    let mut writer = store.writer("ref", 11, None).unwrap();
    writer.write(b"hello ").unwrap();
    let before = writer.status().clone();
    drop((writer, store));

    let store = ContentStore::open(root.path()).unwrap();
    assert_eq!(store.status("ref").unwrap(), before);
    let mut writer = store.writer("ref", 11, None).unwrap();
    assert_eq!(*writer.status(), before);
    assert_eq!(writer.digest(), Digest::of(b"hello "));
    writer.write(b"world").unwrap();
    let digest = writer.commit(11, Some(&Digest::of(b"hello world"))).unwrap();
    assert_eq!(read(&store, &digest), b"hello world");
    assert_eq!(kind(store.status("ref")), Some(Kind::NotFound));
}

#[test]
fn an_ingest_of_another_size_begins_anew() {
    let (_root, store) = open();
    store.writer("ref", 10, None).unwrap().write(b"12345").unwrap();
    let writer = store.writer("ref", 20, None).unwrap();
    assert_eq!((writer.offset(), writer.status().total), (0, 20));
}

#[test]
fn what_a_crash_left_half_made_begins_anew() {
    let (root, store) = open();
    store.writer("ref", 10, None).unwrap().write(b"12345").unwrap();
    let about = files(root.path()).into_iter().find(|path| path.ends_with("about")).unwrap();
    std::fs::write(about, "").unwrap();
    assert!(store.statuses(|_| true).unwrap().is_empty());
    assert_eq!(store.writer("ref", 10, None).unwrap().offset(), 0);
    let about = files(root.path()).into_iter().find(|path| path.ends_with("about")).unwrap();
    std::fs::remove_file(about).unwrap();
    drop(store);
    ContentStore::open(root.path()).unwrap();
    assert!(files(root.path()).is_empty());
}

#[test]
fn a_ref_has_one_writer() {
    let (_root, store) = open();
    let writer = store.writer("ref", 0, None).unwrap();
    let error = store.writer("ref", 0, None).err().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().starts_with("ref ref locked"), "{error}");
    assert!(store.writer("other", 0, None).is_ok());
    drop(writer);
    assert!(store.writer("ref", 0, None).is_ok());
}

#[test]
fn a_wrong_commit_keeps_the_ingest_and_makes_no_blob() {
    let (root, store) = open();
    let mut writer = store.writer("ref", 0, None).unwrap();
    writer.write(b"bytes").unwrap();
    let wrong = Digest::of(b"others");
    assert_eq!(kind(writer.commit(0, Some(&wrong))), Some(Kind::FailedPrecondition));
    let writer = store.writer("ref", 0, None).unwrap();
    assert_eq!(kind(writer.commit(6, None)), Some(Kind::FailedPrecondition));
    assert!(files(&root.path().join("content/blobs")).is_empty());
    assert!(store.writer("ref", 0, None).unwrap().commit(5, None).is_ok());
}

#[test]
fn a_blob_is_made_once() {
    let (root, store) = open();
    let digest = put(&store, "one", b"bytes");
    assert_eq!(kind(store.writer("two", 0, Some(&digest))), Some(Kind::AlreadyExists));
    let mut writer = store.writer("two", 0, None).unwrap();
    writer.write(b"bytes").unwrap();
    assert_eq!(kind(writer.commit(5, None)), Some(Kind::AlreadyExists));
    assert_eq!(files(root.path()).len(), 1, "the second ingest is gone");
}

#[test]
fn of_concurrent_commits_of_one_blob_one_wins() {
    let (_root, store) = open();
    let writers: Vec<Writer> = (0..8)
        .map(|n| {
            let mut writer = store.writer(&format!("ref-{n}"), 0, None).unwrap();
            writer.write(b"bytes").unwrap();
            writer
        })
        .collect();
    let threads: Vec<_> =
        writers.into_iter().map(|w| std::thread::spawn(move || w.commit(5, None))).collect();
    let results: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let lost = results.into_iter().filter_map(|result| result.err());
    assert!(lost.into_iter().all(|error| error.kind() == Kind::AlreadyExists));
}

#[test]
fn truncate_hashes_what_is_left() {
    let (_root, store) = open();
    let mut writer = store.writer("ref", 0, None).unwrap();
    writer.write(b"hello world").unwrap();
    assert_eq!(kind(writer.truncate(12)), Some(Kind::OutOfRange));
    writer.truncate(5).unwrap();
    assert_eq!(writer.digest(), Digest::of(b"hello"));
    writer.truncate(0).unwrap();
    writer.write(b"bye").unwrap();
    let digest = writer.commit(3, None).unwrap();
    assert_eq!(read(&store, &digest), b"bye");
}

fn sha512(bytes: &[u8]) -> Digest {
    let mut hasher = berth_types::Hasher::new(berth_types::Algorithm::Sha512);
    hasher.update(bytes);
    hasher.finish()
}

#[test]
fn sha512_is_kept_beside_sha256() {
    let (_root, store) = open();
    let expected = sha512(b"bytes");
    let mut writer = store.writer("ref", 0, Some(&expected)).unwrap();
    writer.write(b"bytes").unwrap();
    assert_eq!(writer.commit(5, Some(&expected)).unwrap(), expected);
    let mut seen = Vec::new();
    store
        .walk(|info| {
            seen.push(info.digest);
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, [expected]);
}

#[test]
fn statuses_are_filtered_and_aborted() {
    let (root, store) = open();
    store.writer("a", 7, None).unwrap().write(b"12").unwrap();
    store.writer("b", 0, None).unwrap().write(b"345").unwrap();
    let found = store.statuses(|status| status.reference == "a").unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].offset, found[0].total), (2, 7));
    store.abort("a").unwrap();
    assert_eq!(kind(store.abort("a")), Some(Kind::NotFound));
    store.abort("b").unwrap();
    assert!(files(root.path()).is_empty());
}

#[test]
fn aborting_under_a_writer_fails_its_commit() {
    let (root, store) = open();
    let mut writer = store.writer("ref", 0, None).unwrap();
    writer.write(b"bytes").unwrap();
    store.abort("ref").unwrap();
    writer.write(b"more").unwrap();
    assert_eq!(kind(writer.commit(0, None)), Some(Kind::Aborted));
    assert!(files(root.path()).is_empty());
    put(&store, "ref", b"bytes");
}

#[test]
fn a_flipped_byte_is_found() {
    let (root, store) = open();
    let digest = put(&store, "ref", b"bytes");
    store.verify(&digest).unwrap();
    let path = &files(root.path())[0];
    let mut bytes = std::fs::read(path).unwrap();
    bytes[2] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let error = store.verify(&digest).unwrap_err();
    assert_eq!(error.kind(), Kind::DataLoss);
    assert!(error.message().contains("pull the image again"), "{error}");
}

/// Overwrites a blob as no client can.
fn damage(store: &ContentStore, root: &Path, digest: &Digest, bytes: &[u8]) -> Option<Fault> {
    let path = root.join("content/blobs").join(digest.algorithm().name()).join(digest.hex());
    std::fs::write(path, bytes).unwrap();
    store.check(digest, 5)
}

#[test]
fn what_is_wrong_with_a_blob_is_told_and_replaced() {
    let (root, store) = open();
    let mut writer = store.writer("512", 5, Some(&sha512(b"bytes"))).unwrap();
    writer.write(b"bytes").unwrap();
    let other = writer.commit(5, None).unwrap();
    for digest in [put(&store, "ref", b"bytes"), other] {
        assert_eq!(store.check(&digest, 5), None);
        let damage = |bytes| damage(&store, root.path(), &digest, bytes);
        assert_eq!(damage(b""), Some(Fault::Empty));
        assert_eq!(damage(b"byte"), Some(Fault::Size { found: 4, expected: 5 }));
        assert_eq!(damage(b"butes"), Some(Fault::Differs));
        let reader = store.reader(&digest).unwrap();
        let mut writer = store.replacement("again", 5, &digest).unwrap();
        writer.write(b"Bytes").unwrap();
        assert_eq!(kind(writer.replace(5, &digest)), Some(Kind::FailedPrecondition));
        store.abort("again").unwrap();
        let mut writer = store.replacement("again", 5, &digest).unwrap();
        writer.write(b"bytes").unwrap();
        writer.replace(5, &digest).unwrap();
        assert_eq!(store.check(&digest, 5), None);
        assert_eq!(std::io::read_to_string(reader.file).unwrap(), "butes");
        store.delete(&digest).unwrap();
        assert_eq!(store.check(&digest, 5), Some(Fault::Missing));
    }
    assert!(files(root.path()).is_empty());
}

/// Flips and truncations anywhere.
#[test]
fn a_thousand_damages_are_found() {
    let (root, store) = open();
    let bytes: Vec<u8> = (0..9973_u32).map(|n| (n * n) as u8).collect();
    let digest = put(&store, "ref", &bytes);
    let path = root.path().join("content/blobs/sha256").join(digest.hex());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    for round in 0..1000 {
        let at = round * 7919 % bytes.len();
        let mut damaged = bytes.clone();
        if round % 2 == 0 {
            damaged[at] ^= 1 << (round / 2 % 8)
        } else {
            damaged.truncate(at)
        }
        std::fs::write(&path, damaged).unwrap();
        assert!(store.check(&digest, bytes.len() as u64).is_some(), "round {round}");
    }
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(store.check(&digest, bytes.len() as u64), None);
}

#[test]
fn strays_are_told_from_what_is_made() {
    let (root, store) = open();
    let content = root.path().join("content");
    put(&store, "ref", b"bytes");
    let _writer = store.writer("live", 0, None).unwrap();
    assert!(store.strays().unwrap().is_empty());
    // As it is for the blink of an eye, and for ever after a power cut.
    let half = |reference: &str| {
        let directory = content.join("ingest").join(Digest::of(reference.as_bytes()).hex());
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("about"), "").unwrap();
        directory
    };
    half("live");
    let mut strays = vec![half("half")];
    for name in ["blobs/file", "blobs/sha256/file", "ingest/file"] {
        strays.push(content.join(name));
        std::fs::write(content.join(name), "").unwrap();
    }
    let link = content.join("blobs/sha256").join(Digest::of(b"link").hex());
    std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    strays.push(link);
    let mut found = store.strays().unwrap();
    found.sort();
    strays.sort();
    assert_eq!(found, strays);
}

#[test]
fn a_deleted_blob_is_gone_but_for_its_readers() {
    let (_root, store) = open();
    let digest = put(&store, "ref", b"bytes");
    let mut reader = store.reader(&digest).unwrap();
    store.delete(&digest).unwrap();
    assert_eq!(kind(store.delete(&digest)), Some(Kind::NotFound));
    assert_eq!(kind(store.reader(&digest)), Some(Kind::NotFound));
    assert_eq!(kind(store.info(&digest)), Some(Kind::NotFound));
    let mut bytes = Vec::new();
    reader.file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"bytes");
}

/// A small filesystem of its own for a test; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(bytes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        rustix::mount::mount(
            "tmpfs",
            directory.path(),
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            Some(std::ffi::CString::new(format!("size={bytes}")).unwrap().as_c_str()),
        )
        .unwrap();
        Self(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_full_disk_is_said_and_the_ingest_goes_on_when_there_is_room() {
    let disk = SmallDisk::new(1 << 20);
    let store = ContentStore::open(disk.0.path()).unwrap();
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 700 << 10]).unwrap();

    let block: Vec<u8> = (0..64 << 10).map(|n| n as u8).collect();
    let mut writer = store.writer("ref", 0, None).unwrap();
    let mut whole = Vec::new();
    let error = loop {
        match writer.write(&block) {
            Ok(()) => whole.extend_from_slice(&block),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::ResourceExhausted, "{error}");
    assert_eq!(writer.digest(), Digest::of(&whole));
    std::fs::remove_file(&ballast).unwrap();
    writer.write(&block).unwrap();
    whole.extend_from_slice(&block);
    let digest = writer.commit(whole.len() as u64, None).unwrap();
    assert_eq!(read(&store, &digest), whole);
}

/// Not a test by itself: the child of the next one, which commits blobs until it is killed.
#[test]
fn commit_until_killed() {
    let Ok(root) = std::env::var("BERTH_CONTENT_TEST_VICTIM") else { return };
    let store = ContentStore::open(Path::new(&root)).unwrap();
    for n in 0u64.. {
        let digest = put(&store, &format!("ref-{n}"), &n.to_le_bytes().repeat(5000));
        let line = format!("committed {digest}\n");
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
}

#[test]
fn kill_leaves_whole_blobs_only() {
    use std::io::{BufRead, BufReader};
    let root = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "commit_until_killed", "--nocapture"])
        .env("BERTH_CONTENT_TEST_VICTIM", root.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut committed = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(digest) = line.strip_prefix("committed ") {
            committed.push(digest.parse::<Digest>().unwrap());
        }
        if committed.len() == 30 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    let store = ContentStore::open(root.path()).unwrap();
    for digest in &committed {
        store.info(digest).unwrap();
    }
    store.walk(|info| store.verify(&info.digest)).unwrap();
    for status in store.statuses(|_| true).unwrap() {
        store.abort(&status.reference).unwrap();
    }
    assert!(store.statuses(|_| true).unwrap().is_empty());
}
