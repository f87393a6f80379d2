//! The shim's own log: lines in the form that containerd's shims have, on standard error, which is
//! the bundle's `log` FIFO. A line that doesn't fit is lost: the log never holds up a container.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Longer lines are cut: a FIFO takes so much in one piece (`PIPE_BUF`).
const MAX_LINE: usize = 4096;

/// Sends what the shim logs to standard error from now on.
pub(super) fn start(debug: bool) {
    let level = if debug { Level::DEBUG } else { Level::INFO };
    // It fails only when it was called before.
    let _ = tracing::subscriber::set_global_default(Log { level });
}

struct Log {
    level: Level,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let text = line.finish(*event.metadata().level());
        let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
    }

    // There are no spans in the shim.
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
    fn finish(self, level: Level) -> String {
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
        let mut line = format!("time=\"{time}\" level={level} msg={message:?}{fields}");
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
        let text = line.finish(Level::WARN);
        assert!(text.starts_with("time=\"20"));
        assert!(text.ends_with("Z\" level=warning msg=\"it \\\"broke\\\"\\nbadly\" id=\"a\"\n"));
    }

    #[test]
    fn a_long_line_is_cut() {
        let text = Line { message: "é".repeat(5000), fields: String::new() }.finish(Level::INFO);
        assert!(text.len() <= MAX_LINE && text.ends_with('\n'));
    }
}
