//! One line of a log file.

use std::io::Write as _;
use std::time::SystemTime;

use serde::Deserialize;

use crate::time;

/// How a log's lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// Docker's `json-file`: an object in each line.
    #[default]
    Json,
    /// Kubernetes' CRI: time, stream, `F` for a line or `P` for a part of one, and the text.
    Cri,
}

/// Which of a process's outputs an entry is from. A terminal has only [`Stream::Stdout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// `stdout` or `stderr`.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// What a container wrote, at most a line of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When the shim read it.
    pub time: SystemTime,
    /// From which output.
    pub stream: Stream,
    /// The text, with its newline where it had one. Bytes that were no UTF-8 are U+FFFD.
    pub log: String,
}

impl Format {
    /// Appends the line of a log file for `text`, with a newline inside the entry if `newline`.
    pub(crate) fn encode(
        self,
        time: SystemTime,
        stream: Stream,
        text: &[u8],
        newline: bool,
        out: &mut Vec<u8>,
    ) {
        match self {
            Self::Json => encode_json(time, stream, text, newline, out),
            Self::Cri => encode_cri(time, stream, text, newline, out),
        }
    }
}

/// `2026-01-02T03:04:05.000000006Z stdout F hello`
fn encode_cri(time: SystemTime, stream: Stream, text: &[u8], newline: bool, out: &mut Vec<u8>) {
    time::format(time, out);
    out.push(b' ');
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(if newline { b" F " } else { b" P " });
    out.extend_from_slice(text);
    out.push(b'\n');
}

fn encode_json(time: SystemTime, stream: Stream, text: &[u8], newline: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"log\":\"");
    for chunk in text.utf8_chunks() {
        escape(chunk.valid(), out);
        // Docker replaces each byte, not each sequence.
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    if newline {
        out.extend_from_slice(b"\\n");
    }
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    time::format(time, out);
    out.extend_from_slice(b"\"}\n");
}

/// Escapes as Go's JSON encoder does, which keeps the text safe inside HTML and JavaScript too.
fn escape(text: &str, out: &mut Vec<u8>) {
    let mut plain = 0;
    for (at, character) in text.char_indices() {
        let short = match character {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => "",
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[plain..at]);
        plain = at + character.len_utf8();
        out.extend_from_slice(short.as_bytes());
        if short.is_empty() {
            // Writing to a vector can't fail.
            let _ = write!(out, "\\u{:04x}", character as u32);
        }
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
}

/// Reads one line of a log file of either format, without its newline; `None` for one that is
/// damaged.
pub(crate) fn decode(line: &[u8]) -> Option<Entry> {
    if line.starts_with(b"{") { decode_json(line) } else { decode_cri(line) }
}

fn decode_cri(line: &[u8]) -> Option<Entry> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let time = time::parse(std::str::from_utf8(fields.next()?).ok()?)?;
    let stream = match fields.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    // Further tags may follow the first, after colons.
    let whole = match fields.next()?.split(|byte| *byte == b':').next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    let mut log = String::from_utf8_lossy(fields.next()?).into_owned();
    if whole {
        log.push('\n');
    }
    Some(Entry { time, stream, log })
}

fn decode_json(line: &[u8]) -> Option<Entry> {
    /// Docker leaves out what is empty.
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(default)]
        log: String,
        #[serde(default)]
        stream: &'a str,
        time: &'a str,
    }
    let line: Line = serde_json::from_slice(line).ok()?;
    let stream = if line.stream == "stderr" { Stream::Stderr } else { Stream::Stdout };
    Some(Entry { time: time::parse(line.time)?, stream, log: line.log })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn line(text: &[u8], newline: bool) -> String {
        let mut out = Vec::new();
        let time = UNIX_EPOCH + Duration::new(1_767_323_045, 6);
        Format::Json.encode(time, Stream::Stdout, text, newline, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_written_as_docker_writes_it() {
        assert_eq!(
            line(b"hello", true),
            "{\"log\":\"hello\\n\",\"stream\":\"stdout\",\
             \"time\":\"2026-01-02T03:04:05.000000006Z\"}\n"
        );
    }

    #[test]
    fn special_characters_are_escaped_as_go_escapes_them() {
        let written = line("\"\\\r\t\u{1b}\0<>&\u{2028}é\u{7f}".as_bytes(), false);
        let expected = r#"{"log":"\"\\\r\t\u001b\u0000\u003c\u003e\u0026\u2028é"#;
        assert!(written.starts_with(&format!("{expected}\u{7f}\"")), "{written}");
    }

    #[test]
    fn invalid_utf8_is_replaced_byte_by_byte() {
        assert!(line(b"a\xff\xe2\x82b", false).starts_with(r#"{"log":"a\ufffd\ufffd\ufffdb""#));
    }

    #[test]
    fn a_line_is_written_as_kubernetes_reads_it() {
        let time = UNIX_EPOCH + Duration::new(1_767_323_045, 6);
        let line = |stream, text: &[u8], newline| {
            let mut out = Vec::new();
            Format::Cri.encode(time, stream, text, newline, &mut out);
            out
        };
        let whole = line(Stream::Stdout, b"hello  world ", true);
        assert_eq!(whole, b"2026-01-02T03:04:05.000000006Z stdout F hello  world \n");
        let part = line(Stream::Stderr, b"a\xff", false);
        assert_eq!(part, b"2026-01-02T03:04:05.000000006Z stderr P a\xff\n");
        let read = |line: &[u8]| decode(&line[..line.len() - 1]).unwrap();
        assert_eq!(
            read(&whole),
            Entry { time, stream: Stream::Stdout, log: "hello  world \n".to_owned() }
        );
        assert_eq!(
            read(&part),
            Entry { time, stream: Stream::Stderr, log: "a\u{fffd}".to_owned() }
        );
        assert_eq!(read(&line(Stream::Stdout, b"", true)).log, "\n");
    }

    #[test]
    fn damaged_lines_are_none() {
        for damaged in [
            "",
            "{",
            "{}",
            r#"{"log":"a","time":"now"}"#,
            "2026-01-02T03:04:05Z stdout F",
            "2026-01-02T03:04:05Z stdout X text",
            "2026-01-02T03:04:05Z stdin F text",
            "now stdout F text",
        ] {
            assert_eq!(decode(damaged.as_bytes()), None, "{damaged}");
        }
    }

    proptest! {
        #[test]
        fn text_survives(text: String, newline: bool) {
            let written = line(text.as_bytes(), newline);
            let entry = decode(written.trim_end_matches('\n').as_bytes()).unwrap();
            prop_assert_eq!(entry.log, if newline { text + "\n" } else { text });
        }

        #[test]
        fn any_bytes_make_one_line(bytes: Vec<u8>) {
            let written = line(&bytes, true);
            prop_assert_eq!(written.matches('\n').count(), 1);
            let entry = decode(written.trim_end().as_bytes()).unwrap();
            prop_assert!(entry.log.ends_with('\n'));
        }
    }
}
