//! The store from outside: group commit, durability, crashes, damage.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use berth_store::redb::{ReadableTable, TableDefinition, TableError, WriteTransaction};
use berth_store::{DbResultExt, Durability, Store};
use berth_types::{Error, Kind, Result};

type Operation = Box<dyn FnOnce(&WriteTransaction) -> Result<()> + Send>;

const ROWS: TableDefinition<u64, u64> = TableDefinition::new("rows");

fn put(key: u64) -> impl FnOnce(&WriteTransaction) -> Result<()> + Send + 'static {
    move |transaction| {
        transaction.open_table(ROWS).db()?.insert(key, key).db()?;
        Ok(())
    }
}

fn keys(store: &Store) -> Vec<u64> {
    let rows = store.read(|transaction| {
        let table = match transaction.open_table(ROWS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            table => table.db()?,
        };
        table.iter().db()?.map(|row| Ok(row.db()?.0.value())).collect()
    });
    rows.unwrap()
}

/// Holds the writer thread inside an operation until the returned sender is dropped.
async fn hold_writer(store: &Store) -> (tokio::task::JoinHandle<Result<()>>, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel::<()>();
    let (inside, entered) = tokio::sync::oneshot::channel();
    let store = store.clone();
    let held = tokio::spawn(async move {
        let wait = move |_: &WriteTransaction| {
            let _ = inside.send(());
            let _ = released.recv();
            Ok(())
        };
        store.write(Durability::Synced, wait).await
    });
    entered.await.unwrap();
    (held, release)
}

/// Starts all writes while the writer is held, so that they are one batch.
async fn together<F>(store: &Store, operations: Vec<F>) -> Vec<Result<()>>
where
    F: FnOnce(&WriteTransaction) -> Result<()> + Send + 'static,
{
    let (held, release) = hold_writer(store).await;
    let mut writes = Vec::new();
    for operation in operations {
        let store = store.clone();
        writes.push(tokio::spawn(async move { store.write(Durability::Synced, operation).await }));
        tokio::task::yield_now().await;
    }
    drop(release);
    held.await.unwrap().unwrap();
    let mut results = Vec::new();
    for write in writes {
        results.push(write.await.unwrap());
    }
    results
}

fn open() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("berth.db")).unwrap();
    (directory, store)
}

#[tokio::test]
async fn concurrent_writes_share_a_commit() {
    let (_directory, store) = open();
    let before = store.commits();
    let results = together(&store, (0..200).map(put).collect()).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(keys(&store).len(), 200);
    // The operation that held the writer, and all the others.
    assert_eq!(store.commits() - before, 2);
}

#[tokio::test]
async fn an_operation_that_fails_leaves_its_neighbours_alone() {
    let (_directory, store) = open();
    let operations: Vec<Operation> = vec![
        Box::new(put(1)),
        Box::new(|_| Err(Error::not_found("no such row"))),
        Box::new(put(3)),
    ];
    let results = together(&store, operations).await;
    assert_eq!(results[1].as_ref().unwrap_err().kind(), Kind::NotFound);
    assert_eq!(keys(&store), [1, 3]);
}

#[tokio::test]
async fn a_panic_costs_its_transaction_and_not_the_writer() {
    let (_directory, store) = open();
    let operations: Vec<Operation> = vec![
        Box::new(put(1)),
        Box::new(|transaction| {
            put(2)(transaction)?;
            panic!("a fault in an operation")
        }),
        Box::new(put(3)),
    ];
    let results = together(&store, operations).await;
    let kinds: Vec<_> = results.iter().map(|r| r.as_ref().err().map(Error::kind)).collect();
    assert_eq!(kinds, [Some(Kind::Aborted), Some(Kind::Internal), None]);
    assert!(results[1].as_ref().unwrap_err().message().contains("a fault in an operation"));
    assert_eq!(keys(&store), [3]);
}

#[tokio::test]
async fn a_write_goes_on_without_its_caller() {
    let (_directory, store) = open();
    let (held, release) = hold_writer(&store).await;
    let caller = tokio::spawn({
        let store = store.clone();
        async move { store.write(Durability::Synced, put(7)).await }
    });
    tokio::task::yield_now().await;
    caller.abort();
    drop(release);
    held.await.unwrap().unwrap();
    // Queued behind it, so it is answered after it.
    store.write(Durability::Synced, |_| Ok(())).await.unwrap();
    assert_eq!(keys(&store), [7]);
}

#[tokio::test]
async fn a_buffered_write_is_seen_at_once_and_kept_at_close() {
    let (directory, store) = open();
    store.write(Durability::Buffered, put(5)).await.unwrap();
    assert_eq!(keys(&store), [5]);
    drop(store);
    let again = Store::open(&directory.path().join("berth.db")).unwrap();
    assert_eq!(keys(&again), [5]);
}

#[test]
fn the_file_is_private_and_locked() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, _store) = open();
    let path = directory.path().join("berth.db");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let error = Store::open(&path).err().unwrap();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.message().contains("open in another process"), "{error}");
}

#[test]
fn what_is_not_a_database_is_data_loss() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("berth.db");
    std::fs::write(&path, "no database at all, but a text".repeat(1000)).unwrap();
    let error = Store::open(&path).err().unwrap();
    assert_eq!(error.kind(), Kind::DataLoss, "{error}");
    assert!(error.message().contains("move the database file away"), "{error}");
}

/// `DAMAGES` says how many.
#[tokio::test]
async fn flips_and_truncations_are_detected_and_never_panic() {
    let (directory, store) = open();
    for key in 0..500 {
        store.write(Durability::Buffered, put(key)).await.unwrap();
    }
    drop(store);
    let path = directory.path().join("berth.db");
    let good = std::fs::read(&path).unwrap();
    let expected: Vec<u64> = (0..500).collect();
    let damages = std::env::var("DAMAGES").map_or(300, |damages| damages.parse().unwrap());
    for round in 0..damages {
        let at = round * good.len() / damages;
        let mut bad = good.clone();
        match round % 4 {
            0 => bad.truncate(at),
            _ => bad[at] ^= 1 << (round % 8),
        }
        std::fs::write(&path, &bad).unwrap();
        // Most of the file is free pages, so many flips change nothing.
        match Store::open(&path) {
            Ok(store) => assert_eq!(keys(&store), expected, "byte {at}"),
            Err(error) => assert!(
                matches!(error.kind(), Kind::DataLoss | Kind::FailedPrecondition),
                "byte {at}: {error}"
            ),
        }
    }
}

/// A small filesystem of its own; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", directory.path(), "tmpfs", flags, c"size=8m").unwrap();
        Self(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    fill_and_go_on(Durability::Synced).await;
}

/// What was answered before it was on the disk is not lost to a disk that fills up.
#[tokio::test]
async fn a_full_disk_takes_nothing_back() {
    fill_and_go_on(Durability::Buffered).await;
}

async fn fill_and_go_on(durability: Durability) {
    const BLOBS: TableDefinition<u64, &[u8]> = TableDefinition::new("blobs");
    let disk = SmallDisk::new();
    let store = Store::open(&disk.0.path().join("berth.db")).unwrap();
    store.write(Durability::Synced, put(1)).await.unwrap();
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();

    let mut error = None;
    for key in 0..64u64 {
        let grow = move |transaction: &WriteTransaction| {
            let mut blobs = transaction.open_table(BLOBS).db()?;
            blobs.insert(key, [7; 64 << 10].as_slice()).db()?;
            Ok(())
        };
        if let Err(full) = store.write(durability, grow).await {
            error = Some((key, full));
            break;
        }
    }
    let (failed, error) = error.unwrap();
    assert_eq!(error.kind(), Kind::ResourceExhausted, "{error}");
    std::fs::remove_file(&ballast).unwrap();

    // The same store goes on, with all that was acknowledged and nothing of what was not.
    assert_eq!(keys(&store), [1]);
    store.write(Durability::Synced, put(2)).await.unwrap();
    assert_eq!(keys(&store), [1, 2]);
    let kept = store.read(|transaction| {
        let blobs = transaction.open_table(BLOBS).db()?;
        blobs.iter().db()?.map(|row| Ok(row.db()?.0.value())).collect::<Result<Vec<u64>>>()
    });
    assert!(kept.unwrap().into_iter().eq(0..failed));
}

/// Fills what is left of a disk.
fn fill(disk: &SmallDisk) -> std::path::PathBuf {
    use std::io::Write;
    let balloon = disk.0.path().join("balloon");
    let mut file = std::fs::File::create(&balloon).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    balloon
}

#[tokio::test]
async fn a_full_disk_can_be_emptied() {
    const BLOBS: TableDefinition<u64, &[u8]> = TableDefinition::new("blobs");
    let disk = SmallDisk::new();
    let path = disk.0.path().join("berth.db");
    let store = Store::open(&path).unwrap();
    let grow = |key| {
        move |transaction: &WriteTransaction| {
            let mut blobs = transaction.open_table(BLOBS).db()?;
            blobs.insert(key, [7; 4 << 10].as_slice()).db()?;
            Ok(())
        }
    };
    let shrink = |key| {
        move |transaction: &WriteTransaction| {
            Ok(transaction.open_table(BLOBS).db()?.remove(key).db()?.is_some())
        }
    };
    store.write(Durability::Synced, grow(0)).await.unwrap();
    let balloon = fill(&disk);
    let mut written = 1;
    while store.write(Durability::Synced, grow(written)).await.is_ok() {
        written += 1;
    }

    // Whatever is tried meanwhile does not use the reserve up, nor does a new start of the daemon.
    drop(store);
    let store = Store::open(&path).unwrap();
    for durability in [Durability::Synced, Durability::Buffered].into_iter().cycle().take(100) {
        let removals = (0..4).map(|_| store.write_from_reserve(durability, shrink(u64::MAX)));
        let growth = store.write(durability, grow(u64::MAX));
        let removals = futures_util::future::join_all(removals);
        let (grown, removed) = futures_util::future::join(growth, removals).await;
        // Pages that are free inside the file are for all.
        if let Err(refused) = grown {
            assert_eq!(refused.kind(), Kind::ResourceExhausted);
        }
        for removed in removed {
            removed.unwrap();
        }
    }
    for key in 0..written {
        assert!(store.write_from_reserve(Durability::Buffered, shrink(key)).await.unwrap());
    }
    std::fs::remove_file(balloon).unwrap();
    store.write(Durability::Synced, grow(1)).await.unwrap();
}

/// Not a test by itself: the child of the next one, which writes until it is killed.
#[tokio::test]
async fn write_until_killed() {
    let Ok(path) = std::env::var("BERTH_STORE_TEST_VICTIM") else { return };
    let store = Store::open(Path::new(&path)).unwrap();
    let first = keys(&store).len() as u64;
    for key in first.. {
        store.write(Durability::Synced, put(key)).await.unwrap();
        println!("acknowledged {key}");
    }
}

#[test]
fn what_was_acknowledged_survives_kill() {
    use std::io::{BufRead, BufReader};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("berth.db");
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "write_until_killed", "--nocapture"])
            .env("BERTH_STORE_TEST_VICTIM", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut last = None;
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        for line in lines {
            let line = line.unwrap();
            let Some(key) = line.strip_prefix("acknowledged ") else { continue };
            last = key.parse::<u64>().ok();
            seen += 1;
            if seen == 20 * round {
                // Further lines may still come through the pipe: they were acknowledged, too.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let kept = keys(&Store::open(&path).unwrap());
        assert!(kept.last() >= last.as_ref(), "kept {:?}, acknowledged {last:?}", kept.last());
        assert!(kept.iter().copied().eq(0..kept.len() as u64), "a gap in {kept:?}");
    }
}
