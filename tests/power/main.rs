//! Power cuts: a guest works on a disk whose every write and flush is recorded; then the disk is
//! made as a power cut at any moment may leave it, with what was flushed and any part of what was
//! not, and berth is started on it. What was acknowledged must be there, everything must be whole,
//! the next pull must work, and all space must come back.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step fails the test")]

mod guest;
mod log;
mod outcome;
mod steps;

use std::fs::File;
use std::path::Path;

use berth_tests::{Finished, SmallDisk, wait_until};

use crate::guest::Guest;
use crate::outcome::Outcome;
use crate::steps::Steps;

#[test]
#[ignore = "boots a guest: tests/guest/power"]
fn power_cuts_with_layers_as_images() {
    cut("snapshotter = \"erofs\"\n");
}

#[test]
#[ignore = "boots a guest: tests/guest/power"]
fn power_cuts_with_layers_as_directories() {
    cut("snapshotter = \"overlayfs\"\n");
}

#[test]
#[ignore = "boots a guest: tests/guest/power"]
fn power_cuts_with_discarded_blobs() {
    let discard = "[plugins.\"io.containerd.cri.v1.images\"]\ndiscard_unpacked_layers = true\n";
    cut(&format!("snapshotter = \"erofs\"\n{discard}"));
}

/// A number of the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Random numbers (SplitMix64, Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// The moments of cuts: a third at any write, a third just after something was acknowledged, a
/// third about a flush.
fn moments(guest: &Guest, count: u64, random: &mut Random) -> Vec<usize> {
    let (flushes, marks) = (guest.log.flushes(), &guest.marks);
    let first = marks[0].0;
    let mut moments: Vec<_> = (0..count)
        .map(|number| match number % 3 {
            0 => first + random.below(guest.log.len() - first),
            1 => marks[random.below(marks.len())].0 + 1 + random.below(3),
            _ => flushes[random.below(flushes.len())] + random.below(3),
        })
        .map(|moment| moment.min(guest.log.len()))
        .collect();
    moments.sort_unstable();
    moments
}

fn cut(config: &str) {
    let seed = number("SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let count = number("CUTS").unwrap_or(100);
    let guest = Guest::run(config);
    println!("{} writes, {} marks, SEED={seed}", guest.log.len(), guest.marks.len());
    let mut random = Random(seed);
    let base = File::options().write(true).open(&guest.base).unwrap();
    let state = guest.base.with_extension("cut");
    let mut settled = 0;
    let mut outcomes = Outcome::default();
    for moment in moments(&guest, count, &mut random) {
        settled = guest.log.settle(&base, settled, moment);
        guest::copy(&guest.base, &state);
        let kind = random.below(KINDS.len());
        let lost = strew(&guest, &state, (settled, moment), kind, &mut random);
        let before = guest.marks.iter().take_while(|(number, _)| *number < moment).count();
        // A beginning is told of by then, but may be in the log behind what it began.
        let begun = guest.marks.get(before).is_some_and(|(_, mark)| mark.starts_with("begin "));
        let steps = Steps(&guest.marks[..before + usize::from(begun)]);
        let last = steps.0.last().map_or("nothing", |(_, mark)| mark);
        println!("cut at {moment} after {last:?}: {} ({lost} bytes lost)", KINDS[kind].2);
        outcomes +=
            outcome::judge(&guest, &SmallDisk::of(&state, guest.place.clone()), steps, lost);
        check_filesystem(&state);
    }
    outcomes.report(count);
}

/// How much of what was not flushed is kept, of 4, in which pieces, and what that is called.
const KINDS: [(usize, Option<usize>, &str); 5] = [
    (0, None, "nothing unflushed is kept"),
    (4, None, "all unflushed is kept"),
    (2, None, "writes are lost"),
    (1, Some(4096), "most blocks are lost"),
    (2, Some(512), "sectors are lost"),
];

fn strew(
    guest: &Guest,
    state: &Path,
    range: (usize, usize),
    kind: usize,
    random: &mut Random,
) -> usize {
    let disk = File::options().write(true).open(state).unwrap();
    let (share, piece, _) = KINDS[kind];
    guest.log.strew(&disk, range, piece, || random.below(4) < share)
}

/// The filesystem bears it too: what is judged is berth, not the way the disk was made.
fn check_filesystem(disk: &Path) {
    let disk = disk.to_str().unwrap();
    // What was unmounted may be in use for a moment more.
    wait_until("the disk to be free", || {
        Finished::run("losetup", &["-j", disk], b"").success().stdout.is_empty()
    });
    Finished::run("e2fsck", &["-fn", disk], b"").success();
}
