//! Writer and reader with each other, through real files.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_logs::{Entry, Format, MAX_LINE, Query, Reader, Rotation, Stream, Writer};
use tokio::sync::watch;

const SMALL: Rotation = Rotation { max_size: Some(200), max_files: 3 };

fn at(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(second)
}

fn writer(path: &Path, rotation: Rotation) -> Writer {
    Writer::open(path, Format::Json, rotation).unwrap()
}

fn write_numbers(writer: &mut Writer, numbers: std::ops::Range<u64>) {
    for number in numbers {
        writer.write(Stream::Stdout, format!("line {number}\n").as_bytes(), at(number)).unwrap();
    }
}

async fn entries(path: &Path, query: Query) -> Vec<Entry> {
    let mut reader = Reader::open(path, query).unwrap();
    let mut entries = Vec::new();
    while let Some(entry) = reader.next().await.unwrap() {
        entries.push(entry);
    }
    entries
}

async fn texts(path: &Path, query: Query) -> Vec<String> {
    entries(path, query).await.into_iter().map(|entry| entry.log).collect()
}

fn lines(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|number| format!("line {number}\n")).collect()
}

#[tokio::test]
async fn what_is_written_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut writer = writer(&path, Rotation::default());
    writer.write(Stream::Stdout, b"one\ntw", at(1)).unwrap();
    writer.write(Stream::Stderr, b"error\n\n", at(2)).unwrap();
    writer.write(Stream::Stdout, b"o\nrest", at(3)).unwrap();
    writer.end(Stream::Stdout, at(4)).unwrap();
    let entry = |second, stream, log: &str| Entry { time: at(second), stream, log: log.into() };
    assert_eq!(
        entries(&path, Query::default()).await,
        [
            entry(1, Stream::Stdout, "one\n"),
            entry(2, Stream::Stderr, "error\n"),
            entry(2, Stream::Stderr, "\n"),
            entry(3, Stream::Stdout, "two\n"),
            entry(4, Stream::Stdout, "rest"),
        ]
    );
}

#[tokio::test]
async fn a_long_line_is_cut_into_parts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut text = "x".repeat(10 * 1024 * 1024);
    text.push('\n');
    let mut writer = writer(&path, Rotation::default());
    for chunk in text.as_bytes().chunks(60_000) {
        writer.write(Stream::Stdout, chunk, at(1)).unwrap();
    }
    let parts = texts(&path, Query::default()).await;
    assert!(parts.iter().all(|part| part.len() <= MAX_LINE + 1));
    assert_eq!(parts.concat(), text);
}

#[tokio::test]
async fn a_line_of_just_the_longest_length_is_one_entry() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let line = "x".repeat(MAX_LINE) + "\n";
    let mut writer = writer(&path, Rotation::default());
    writer.write(Stream::Stdout, line.as_bytes(), at(1)).unwrap();
    assert_eq!(texts(&path, Query::default()).await, [line]);
}

#[tokio::test]
async fn rotation_keeps_the_newest_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    write_numbers(&mut writer(&path, SMALL), 0..100);
    let mut names: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["log", "log.1", "log.2"]);
    let kept = texts(&path, Query::default()).await;
    assert_eq!(kept, lines(100 - kept.len() as u64..100));
    // A file ends with the entry that passes the limit.
    let rotated = std::fs::metadata(directory.path().join("log.1")).unwrap().len();
    assert!((200..300).contains(&rotated), "{rotated}");
}

#[tokio::test]
async fn tail_counts_across_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    write_numbers(&mut writer(&path, Rotation { max_files: 100, ..SMALL }), 0..100);
    for tail in [0, 1, 2, 3, 7, 50, 99, 100, 101] {
        let query = Query { tail: Some(tail), ..Query::default() };
        assert_eq!(texts(&path, query).await, lines(100 - tail.min(100)..100), "tail {tail}");
    }
}

#[tokio::test]
async fn tail_reads_back_through_large_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    write_numbers(&mut writer(&path, Rotation::default()), 0..5000);
    let query = Query { tail: Some(3000), ..Query::default() };
    assert_eq!(texts(&path, query).await, lines(2000..5000));
}

#[tokio::test]
async fn since_and_until_bound_the_times() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    write_numbers(&mut writer(&path, Rotation::default()), 0..20);
    let query = Query { since: Some(at(5)), until: Some(at(9)), ..Query::default() };
    assert_eq!(texts(&path, query).await, lines(5..10));
}

#[tokio::test]
async fn a_missing_log_is_empty() {
    let directory = tempfile::tempdir().unwrap();
    assert!(texts(&directory.path().join("log"), Query::default()).await.is_empty());
}

/// Follows a log in which `rotation` gives new files; the writer waits for the follower after
/// every `wait_every` entries.
async fn follow_through(rotation: Rotation, count: u64, wait_every: u64) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut reader = Reader::open(&path, Query { follow: true, ..Query::default() }).unwrap();
    let (progress, mut read) = watch::channel(0);
    let follower = tokio::spawn(async move {
        for number in 0..count {
            let entry = reader.next().await.unwrap().unwrap();
            assert_eq!(entry.log, format!("line {number}\n"));
            progress.send_replace(number + 1);
        }
        reader.stop_following();
        assert_eq!(reader.next().await.unwrap(), None);
    });
    let mut writer = writer(&path, rotation);
    for number in 0..count {
        if number % wait_every == 0 && read.wait_for(|read| *read == number).await.is_err() {
            break; // The follower has failed, and says why below.
        }
        write_numbers(&mut writer, number..number + 1);
    }
    follower.await.unwrap();
}

#[tokio::test]
async fn a_follower_sees_each_entry_once() {
    follow_through(Rotation::default(), 500, 10).await;
}

#[tokio::test]
async fn a_follower_survives_rotation() {
    follow_through(SMALL, 500, 4).await;
}

#[tokio::test]
async fn a_follower_survives_the_only_file_being_replaced() {
    follow_through(Rotation { max_files: 1, ..SMALL }, 200, 1).await;
}

#[tokio::test]
async fn a_slow_follower_catches_up_through_kept_files() {
    follow_through(Rotation { max_files: 100, ..SMALL }, 200, 50).await;
}

#[tokio::test]
async fn a_follower_sees_a_file_cut_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut writer = writer(&path, Rotation::default());
    write_numbers(&mut writer, 0..3);
    let mut reader = Reader::open(&path, Query { follow: true, ..Query::default() }).unwrap();
    for number in 0..3 {
        assert_eq!(reader.next().await.unwrap().unwrap().log, format!("line {number}\n"));
    }
    std::fs::File::options().write(true).truncate(true).open(&path).unwrap();
    write_numbers(&mut writer, 3..4);
    assert_eq!(reader.next().await.unwrap().unwrap().log, "line 3\n");
}

#[tokio::test]
async fn an_entry_cut_by_a_crash_costs_only_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    write_numbers(&mut writer(&path, Rotation::default()), 0..2);
    let text = std::fs::read(&path).unwrap();
    std::fs::write(&path, &text[..text.len() - 10]).unwrap();
    write_numbers(&mut writer(&path, Rotation::default()), 2..3);
    assert_eq!(texts(&path, Query::default()).await, ["line 0\n", "line 2\n"]);
}

/// A file system of one mebibyte, which is full soon.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Self {
        let directory = tempfile::tempdir().unwrap();
        rustix::mount::mount(
            "tmpfs",
            directory.path(),
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            Some(c"size=1m"),
        )
        .unwrap();
        Self(directory)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_delays_entries_and_loses_none() {
    let small = Small::mount();
    let path = small.0.path().join("log");
    let ballast = small.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 2 << 20]).unwrap_err();
    let mut writer = writer(&path, Rotation::default());
    for number in 0..1000u64 {
        let line = format!("line {number}\n");
        assert!(writer.write(Stream::Stdout, line.as_bytes(), at(number)).is_err());
    }
    assert!(writer.is_behind());
    std::fs::remove_file(&ballast).unwrap();
    writer.flush().unwrap();
    assert!(!writer.is_behind());
    assert_eq!(texts(&path, Query::default()).await, lines(0..1000));
}

#[tokio::test]
async fn what_is_lost_on_a_full_disk_is_counted() {
    let small = Small::mount();
    let path = small.0.path().join("log");
    let ballast = small.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 2 << 20]).unwrap_err();
    let mut writer = writer(&path, Rotation::default());
    for number in 0..10_000u64 {
        let line = format!("line {number}\n");
        assert!(writer.write(Stream::Stdout, line.as_bytes(), at(number)).is_err());
    }
    std::fs::remove_file(&ballast).unwrap();
    writer.flush().unwrap();
    let mut kept = texts(&path, Query::default()).await;
    let note = kept.pop().unwrap();
    assert_eq!(kept, lines(0..kept.len() as u64));
    assert_eq!(note, format!("berth: {} log entries were lost here\n", 10_000 - kept.len()));
}

#[tokio::test]
async fn kubernetes_logs_are_rotated_and_reopened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    let mut writer = Writer::open(&path, Format::Cri, SMALL).unwrap();
    write_numbers(&mut writer, 0..20);
    assert!(path.with_extension("log.2").exists() && !path.with_extension("log.3").exists());
    let kept = texts(&path, Query::default()).await;
    assert_eq!(kept, lines(20 - kept.len() as u64..20));

    // Kubernetes' way: the file is moved away, then the writer is told.
    let moved = directory.path().join("0.log.20260102-030405");
    std::fs::rename(&path, &moved).unwrap();
    write_numbers(&mut writer, 20..21);
    writer.reopen().unwrap();
    write_numbers(&mut writer, 21..22);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "1970-01-01T00:00:21Z stdout F line 21\n");
    assert!(std::fs::read_to_string(&moved).unwrap().ends_with(" F line 20\n"));
}

#[tokio::test]
async fn parts_of_long_lines_are_marked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    let mut writer = Writer::open(&path, Format::Cri, Rotation::default()).unwrap();
    let long = "x".repeat(MAX_LINE + 10) + "\n";
    writer.write(Stream::Stdout, long.as_bytes(), at(1)).unwrap();
    writer.write(Stream::Stdout, b"rest", at(2)).unwrap();
    writer.end(Stream::Stdout, at(3)).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let marks: Vec<_> = text.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
    assert_eq!(marks, ["P", "F", "P"]);
    assert_eq!(texts(&path, Query::default()).await.concat(), long + "rest");
}
