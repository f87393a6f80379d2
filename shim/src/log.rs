//! The log: lines in the forms that clients of containerd's shims and of OCI runtimes read.
//!
//! The shim's goes to standard error, which is the bundle's `log` FIFO. A line that doesn't fit is
//! lost: the log never holds up a container.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Longer lines are cut: a FIFO takes so much in one piece (`PIPE_BUF`).
const MAX_LINE: usize = 4096;

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `time="…" level=… msg="…"`
    Text,
    /// An object with `level`, `msg` and `time`.
    Json,
}

/// Where and how to log.
#[derive(Debug)]
pub struct Log {
    /// Debugging messages too.
    pub debug: bool,
    /// The form of each line.
    pub format: Format,
    /// Standard error when there is no file.
    pub file: Option<File>,
}

impl Log {
    /// Sends what is logged there from now on.
    pub fn start(self) {
        // It fails only when it was called before.
        let _ = tracing::subscriber::set_global_default(self);
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let least = if self.debug { Level::DEBUG } else { Level::INFO };
        metadata.is_event() && *metadata.level() <= least
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let text = line.finish(*event.metadata().level(), self.format);
        let _ = match &self.file {
            Some(file) => rustix::io::write(file, text.as_bytes()),
            None => rustix::io::write(rustix::stdio::stderr(), text.as_bytes()),
        };
    }

    // There are no spans here.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    // Writing to a string can't fail.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={:?}", format!("{value:?}")),
        };
    }
}

impl Line {
    fn finish(self, level: Level, format: Format) -> String {
        let level = match level {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        let mut time = Vec::new();
        berth_logs::time::format(SystemTime::now(), &mut time);
        let time = String::from_utf8_lossy(&time);
        let Self { message, fields } = self;
        let mut line = match format {
            Format::Text => format!("time=\"{time}\" level={level} msg={message:?}{fields}"),
            Format::Json => {
                let message = message + &fields;
                // As much as stays below the limit if every byte needs an escape.
                let cut = &message[..message.floor_char_boundary(MAX_LINE / 6 - 32)];
                serde_json::json!({ "level": level, "msg": cut, "time": time }).to_string()
            }
        };
        line.truncate(line.floor_char_boundary(MAX_LINE - 1));
        line.push('\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_form_of_logrus() {
        let line = Line { message: "it \"broke\"\nbadly".into(), fields: " id=\"a\"".into() };
        let text = line.finish(Level::WARN, Format::Text);
        assert!(text.starts_with("time=\"20"));
        assert!(text.ends_with("Z\" level=warning msg=\"it \\\"broke\\\"\\nbadly\" id=\"a\"\n"));
    }

    #[test]
    fn a_long_line_is_cut() {
        let text = Line { message: "é".repeat(5000), fields: String::new() }
            .finish(Level::INFO, Format::Text);
        assert!(text.len() <= MAX_LINE && text.ends_with('\n'));
    }

    #[test]
    fn a_line_of_json_stays_json_however_long() {
        for message in ["it \"broke\"\n", &"\u{1}".repeat(9000)] {
            let line = Line { message: message.into(), fields: String::new() };
            let text = line.finish(Level::ERROR, Format::Json);
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value["level"], "error");
            assert!(message.starts_with(value["msg"].as_str().unwrap()));
            assert!(text.len() <= MAX_LINE);
        }
    }
}
