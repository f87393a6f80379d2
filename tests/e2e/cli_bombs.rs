//! Layers that are far larger than they look: refused by a limit, with little memory, and gone.

use std::io::Write;
use std::process::{Command, Stdio};

use berth_tests::{Engine, Image, Layer, Registry};
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

/// The most memory that a pull may take, in kB.
const MEMORY: u64 = 100 << 10;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut command = Command::new("zstd");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, bytes) = (child.stdin.take().unwrap(), bytes.to_vec());
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output.stdout
}

/// The header of a member that claims to have `size` bytes.
fn header(kind: EntryType, size: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_path("zeros").unwrap();
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// A member of ten gibibytes of zeros: compressed streams can be written one behind the other.
fn zeros(compress: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let piece = compress(&vec![0; 64 << 20]);
    let start = compress(&header(EntryType::Regular, 10 << 30));
    [start, piece.repeat(160)].concat()
}

/// Empty files, more than a layer may have.
fn files() -> Vec<u8> {
    let pieces = (0..60).map(|piece| {
        let mut tar = Builder::new(Vec::new());
        for number in 0..10_000 {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0o644);
            header.set_size(0);
            tar.append_data(&mut header, format!("{piece}/{number}"), &b""[..]).unwrap();
        }
        // Not ended: the next piece goes on.
        gzip(tar.get_ref())
    });
    pieces.flatten().collect()
}

#[test]
fn cli_bombs_are_refused_with_little_memory_and_leave_nothing() {
    let Some(engine) = Engine::berth() else { return };
    let registry = Registry::start();
    // A frame that asks for a window of 2 GiB: magic, descriptor, window, an empty raw block.
    let window = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, (31 - 10) << 3, 0x01, 0x00, 0x00];
    let extension = header(EntryType::XHeader, 1 << 30);
    let bombs = [
        ("gzip", zeros(gzip), "decompression bomb"),
        ("zstd", zeros(zstd), "decompression bomb"),
        ("window", window, "Frame requires too much memory"),
        ("files", files(), "more than 524288 files"),
        ("claims", gzip(&header(EntryType::Regular, 1 << 50)), "the limit for the whole layer"),
        (
            "extension",
            [gzip(&extension), gzip(&[0; 1 << 20]).repeat(64)].concat(),
            "extended header",
        ),
    ];
    for (name, bomb, why) in bombs {
        assert!(bomb.len() < 16 << 20, "{name} has {} bytes", bomb.len());
        registry.push(&Image::busybox(name).layer(Layer::untrue(bomb)));
        engine.forget_peak();
        let before = engine.peak();
        engine.cli(&["pull", &registry.reference(name)]).exited(1).complains(why);
        let grown = engine.peak().saturating_sub(before);
        assert!(grown < MEMORY, "{name} took {grown} kB");
        for list in [["content", "ls", "-q"], ["leases", "ls", "-q"], ["images", "ls", "-q"]] {
            assert_eq!(engine.ctr(&list).success().stdout, "", "{name}: {list:?}");
        }
        assert_eq!(engine.snapshots(), 0, "{name}");
        engine.cli(&["system", "check"]).success();
    }
}
