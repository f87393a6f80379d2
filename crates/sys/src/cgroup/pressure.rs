//! How long processes of a cgroup had to wait for want of something (PSI, v2 only).

use std::fs;
use std::path::Path;

/// Waiting for processors, memory and disks. `None` where the kernel doesn't measure it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pressure {
    /// For a processor.
    pub cpu: Option<Stalls>,
    /// For memory.
    pub memory: Option<Stalls>,
    /// For a block device.
    pub io: Option<Stalls>,
}

/// One resource's file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stalls {
    /// Some of the processes waited.
    pub some: Option<Stall>,
    /// All of them waited.
    pub full: Option<Stall>,
}

/// One line of such a file.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// Share of the last 10 seconds, in percent.
    pub avg10: f64,
    /// Share of the last minute.
    pub avg60: f64,
    /// Share of the last five minutes.
    pub avg300: f64,
    /// In all, in microseconds.
    pub total: u64,
}

impl Pressure {
    /// That of the cgroup in `directory`. A file that isn't there, or can't be read because the
    /// kernel measures nothing, is no failure.
    pub(super) fn read(directory: &Path) -> Self {
        let stalls = |name: &str| {
            let text = fs::read_to_string(directory.join(name)).ok()?;
            Some(Stalls::parse(&text))
        };
        Self {
            cpu: stalls("cpu.pressure"),
            memory: stalls("memory.pressure"),
            io: stalls("io.pressure"),
        }
    }
}

impl Stalls {
    fn parse(text: &str) -> Self {
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        Self { some: line("some ").map(Stall::parse), full: line("full ").map(Stall::parse) }
    }
}

impl Stall {
    /// `avg10=0.00 avg60=0.12 avg300=0.05 total=4711`
    fn parse(line: &str) -> Self {
        let mut stall = Self::default();
        for (key, value) in line.split_whitespace().filter_map(|field| field.split_once('=')) {
            match key {
                "avg10" => stall.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => stall.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => stall.avg300 = value.parse().unwrap_or(0.0),
                "total" => stall.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        stall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_files() {
        let text = "some avg10=1.50 avg60=0.12 avg300=0.05 total=4711\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=12\n";
        let stalls = Stalls::parse(text);
        let some = Stall { avg10: 1.5, avg60: 0.12, avg300: 0.05, total: 4711 };
        assert_eq!(stalls.some, Some(some));
        assert_eq!(stalls.full.unwrap().total, 12);
        assert_eq!(Stalls::parse("some avg10=0.00 total=1\n").full, None);
        assert_eq!(Pressure::read(Path::new("/nonexistent")), Pressure::default());
    }
}
