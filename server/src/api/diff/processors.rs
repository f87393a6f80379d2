//! Programs that make layers of what berth does not know itself: decrypted, decompressed.
//!
//! As containerd runs them: the blob is a program's standard input, what it is to be its standard
//! output, and the media type of its input in `STREAM_PROCESSOR_MEDIATYPE`. What one returns may
//! be what another accepts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use berth_types::image::media_type;
use berth_types::{Error, Result, ResultExt};
use rustix::fs::MemfdFlags;

use crate::config::StreamProcessor;

const MEDIA_TYPE: &str = "STREAM_PROCESSOR_MEDIATYPE";

/// What ends a program whose output nobody reads on: signal(7).
const SIGPIPE: i32 = 13;

/// What is shown of a failed program's last words, in bytes.
const MAX_WORDS: usize = 1000;

/// A program, and what it is given.
pub(super) struct Stage {
    name: String,
    input: String,
    program: StreamProcessor,
}

/// The programs that make a layer of a blob of this media type, in order: none for a layer.
///
/// # Errors
/// `Unimplemented` when they do not lead to a layer.
pub(super) fn chain(
    known: &BTreeMap<String, StreamProcessor>,
    media_type: &str,
) -> Result<Vec<Stage>> {
    let mut stages: Vec<Stage> = Vec::new();
    let mut input = media_type;
    while !media_type::is_layer(input) {
        let unused = |name: &str| stages.iter().all(|stage| stage.name != name);
        let found = known.iter().find(|(name, program)| {
            program.accepts.iter().any(|accepted| accepted == input) && unused(name)
        });
        let Some((name, program)) = found else {
            return Err(Error::unimplemented(format!(
                "media type {media_type:?} is no layer that can be applied, and no stream \
                 processor makes one of it"
            )));
        };
        let stage = Stage { name: name.clone(), input: input.to_owned(), program: program.clone() };
        stages.push(stage);
        input = &program.returns;
    }
    Ok(stages)
}

/// The programs of a chain while they run. They are killed when this is dropped.
pub(super) struct Running(Vec<Process>);

struct Process {
    name: String,
    child: Child,
    words: File,
}

/// What comes out of a chain.
pub(super) enum Output {
    /// The blob itself.
    Blob(File),
    /// The last program's output.
    Program(ChildStdout),
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Output::Blob(file) => file.read(buffer),
            Output::Program(output) => output.read(buffer),
        }
    }
}

/// Starts the programs on a blob.
///
/// # Errors
/// `FailedPrecondition` when a program can't be started.
pub(super) fn start(stages: &[Stage], blob: File) -> Result<(Output, Running)> {
    let mut running = Running(Vec::new());
    let mut output = Output::Blob(blob);
    for stage in stages {
        let input = match output {
            Output::Blob(file) => Stdio::from(file),
            Output::Program(output) => Stdio::from(output),
        };
        let failed = |error: io::Error| {
            let path = stage.program.path.display();
            Error::failed_precondition(format!("stream processor {}: {path}: {error}", stage.name))
        };
        let words: File = rustix::fs::memfd_create("words", MemfdFlags::CLOEXEC)
            .map_err(|errno| failed(errno.into()))?
            .into();
        let mut command = Command::new(&stage.program.path);
        command.args(&stage.program.args).env(MEDIA_TYPE, &stage.input);
        command.envs(stage.program.env.iter().filter_map(|variable| variable.split_once('=')));
        command.stdin(input).stdout(Stdio::piped());
        command.stderr(words.try_clone().map_err(failed)?);
        let mut child = command.spawn().map_err(failed)?;
        let next = child.stdout.take();
        running.0.push(Process { name: stage.name.clone(), child, words });
        output = match next {
            Some(next) => Output::Program(next),
            None => return Err(Error::internal("a program without an output")),
        };
    }
    Ok((output, running))
}

impl Running {
    /// Waits for the ends of the programs, whose output has been read.
    ///
    /// # Errors
    /// `FailedPrecondition` for one that failed, with its last words.
    pub(super) fn finish(mut self) -> Result<()> {
        for process in &mut self.0 {
            let name = &process.name;
            let status =
                process.child.wait().context(|| format!("wait for stream processor {name}"))?;
            // Nobody reads on once a layer is found to be none, which is told by who read it.
            if !status.success() && status.signal() != Some(SIGPIPE) {
                let words = last_words(&mut process.words);
                return Err(Error::failed_precondition(format!(
                    "stream processor {name} ended with {status}: {words}"
                )));
            }
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in &mut self.0 {
            // One that has ended already is only waited for.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

fn last_words(file: &mut File) -> String {
    let mut words = Vec::new();
    // They are only for a message.
    let _ = file.rewind().and_then(|()| file.read_to_end(&mut words));
    let end = &words[words.len().saturating_sub(MAX_WORDS)..];
    String::from_utf8_lossy(end).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(accepts: &str, returns: &str, script: &str) -> StreamProcessor {
        StreamProcessor {
            accepts: vec![accepts.into()],
            returns: returns.into(),
            path: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec!["GREETING=hi".into()],
        }
    }

    fn through(stages: &[Stage]) -> Result<String> {
        let mut blob = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut blob, b"abc").unwrap();
        blob.rewind().unwrap();
        let (mut output, running) = start(stages, blob)?;
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        running.finish().map(|()| text)
    }

    #[test]
    fn what_one_returns_another_accepts() {
        let tar = media_type::OCI_LAYER;
        let known = BTreeMap::from([
            ("last".to_owned(), program("b", tar, "cat; echo \" $STREAM_PROCESSOR_MEDIATYPE\"")),
            ("first".to_owned(), program("a", "b", "tr a-c A-C; printf \" $GREETING\"")),
            ("loop".to_owned(), program("c", "c", "cat")),
        ]);
        let stages = chain(&known, "a").unwrap();
        assert_eq!(through(&stages).unwrap(), "ABC hi b\n");
        assert_eq!(through(&chain(&known, tar).unwrap()).unwrap(), "abc");
        for unknown in ["c", "d", ""] {
            assert!(chain(&known, unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn a_failure_is_told_in_the_programs_words() {
        let failing = program("a", media_type::OCI_LAYER, "cat; echo no key >&2; exit 3");
        let known = BTreeMap::from([("p".to_owned(), failing.clone())]);
        let error = through(&chain(&known, "a").unwrap()).unwrap_err();
        assert!(error.message().contains("no key"), "{error}");
        let absent = StreamProcessor { path: "/nowhere".into(), ..failing };
        let known = BTreeMap::from([("p".to_owned(), absent)]);
        let error = through(&chain(&known, "a").unwrap()).unwrap_err();
        assert!(error.message().contains("/nowhere"), "{error}");
    }
}
