//! The images: made of the same bytes each time, and of no others.

use berth_tests::{Image, Layer};
use tar::{Builder, EntryType, Header};

/// Layers of the image, the small one of its base among them.
const LAYERS: usize = 20;

/// Files in one directory.
const FILES: usize = 40;

/// File sizes are spread evenly over the powers of two from 512 bytes to 256 KiB, which gives
/// many small files and a mean of 42 KB, about that of a distribution's `/usr`.
const SIZES: (u32, u32) = (9, 18);

/// Every so many files one does not compress, as media and archives don't.
const NOISE: u64 = 8;

/// A small image to run, with what engines mount things on: a distribution's image has that, and
/// an engine need not make it in each container.
pub(crate) fn small(name: &str) -> Image {
    Image::busybox(name).layer(Layer::new(|tar| {
        for directory in ["dev/", "etc/", "proc/", "run/", "sys/"] {
            append(tar, directory, EntryType::Directory, b"");
        }
        for file in ["etc/hostname", "etc/hosts", "etc/resolv.conf"] {
            append(tar, file, EntryType::Regular, b"");
        }
    }))
}

/// An image of `mebibytes` when unpacked, to pull.
pub(crate) fn large(name: &str, mebibytes: usize) -> Image {
    let bytes = mebibytes * (1 << 20) / (LAYERS - 1);
    let mut image = Image::busybox(name);
    for number in 1..LAYERS {
        image = image.layer(Layer::new(|tar| fill(tar, number, bytes)));
    }
    image
}

fn fill(tar: &mut Builder<Vec<u8>>, number: usize, bytes: usize) {
    let mut random = Random(number as u64);
    let words: Vec<_> = (0..4096).map(|_| word(&mut random)).collect();
    let mut written = 0;
    for file in 0.. {
        if written >= bytes {
            break;
        }
        let directory = format!("data/layer{number}/directory{}", file / FILES);
        if file % FILES == 0 {
            append(tar, &format!("{directory}/"), EntryType::Directory, b"");
        }
        let content = content(&mut random, &words);
        append(tar, &format!("{directory}/file{file}"), EntryType::Regular, &content);
        written += content.len();
    }
}

fn content(random: &mut Random, words: &[Vec<u8>]) -> Vec<u8> {
    let exponent = SIZES.0 + random.below(u64::from(SIZES.1 - SIZES.0)) as u32;
    let size = (1_usize << exponent) + random.below(1 << exponent) as usize;
    let noise = random.below(NOISE) == 0;
    let mut content = Vec::with_capacity(size + 16);
    while content.len() < size {
        match noise {
            true => content.extend(random.next().to_ne_bytes()),
            false => content.extend(&words[random.below(words.len() as u64) as usize]),
        }
    }
    content.truncate(size);
    content
}

fn word(random: &mut Random) -> Vec<u8> {
    let length = 2 + random.below(9);
    let mut word: Vec<_> = (0..length).map(|_| b'a' + random.below(26) as u8).collect();
    word.push(b' ');
    word
}

fn append(tar: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_size(content.len() as u64);
    header.set_mtime(1_700_000_000);
    // It writes to memory, and the paths are short.
    let _ = tar.append_data(&mut header, path, content);
}

/// A fixed sequence: Marsaglia's xorshift with 64 bits.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
