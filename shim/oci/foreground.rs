//! Attending a process to its end: its terminal, and signals for it.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use berth_sys::pidfd;
use berth_types::{Error, Result, ResultExt};
use containerd_shim_berth_v1::container::Process;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::life;
use crate::terminal::{self, RawMode, Relay};

/// What is passed on to the process.
const SIGNALS: [SignalKind; 7] = [
    SignalKind::hangup(),
    SignalKind::interrupt(),
    SignalKind::quit(),
    SignalKind::terminate(),
    SignalKind::user_defined1(),
    SignalKind::user_defined2(),
    SignalKind::window_change(),
];

/// How long the terminal's last words are waited for when other programs keep it open.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Ready to attend a process, from before it is started.
pub(crate) struct Attendant {
    terminal: Option<OwnedFd>,
    signals: Vec<(SignalKind, Signal)>,
}

impl Attendant {
    /// Listens for signals from now on.
    ///
    /// # Errors
    /// When that can't be done.
    pub(crate) fn new() -> Result<Self> {
        let listen = |kind: SignalKind| Ok((kind, signal(kind).context(|| "listen for signals")?));
        let signals = SIGNALS.into_iter().map(listen).collect::<Result<_>>()?;
        Ok(Self { terminal: None, signals })
    }

    /// The same, where the process has a terminal if `terminal` is its master.
    pub(crate) fn with_terminal(self, terminal: Option<OwnedFd>) -> Self {
        if let Some(master) = &terminal {
            terminal::follow_size(master);
        }
        Self { terminal, ..self }
    }

    /// Stays until `process`, a child, has ended: its status, or 128 and its signal.
    ///
    /// # Errors
    /// When the process can't be watched, or its terminal.
    pub(crate) async fn attend(self, process: &Process) -> Result<u8> {
        let Self { terminal, mut signals } = self;
        let raw = terminal.as_ref().map(|_| RawMode::enter()).transpose()?;
        let relay = terminal.as_ref().map(Relay::start).transpose()?;
        let pass_on = async {
            loop {
                let kind = any(&mut signals).await;
                match &terminal {
                    Some(master) if kind == SignalKind::window_change() => {
                        terminal::follow_size(master);
                    }
                    // It fails only for a process that has ended.
                    _ => drop(pidfd::send_signal(process.pidfd.as_fd(), kind.as_raw_value())),
                }
            }
        };
        tokio::select! {
            ended = life::ended(&process.pidfd) => ended?,
            () = pass_on => {}
        }
        if let Some(relay) = relay {
            relay.finish(LAST_WORDS).await;
        }
        drop(raw);
        status(process)
    }
}

/// The next signal of any kind.
async fn any(signals: &mut [(SignalKind, Signal)]) -> SignalKind {
    std::future::poll_fn(|context| {
        for (kind, signal) in signals.iter_mut() {
            if signal.poll_recv(context).is_ready() {
                return std::task::Poll::Ready(*kind);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

fn status(process: &Process) -> Result<u8> {
    let status = pidfd::wait(process.pidfd.as_fd()).context(|| "wait for the process")?;
    let status = status.ok_or_else(|| Error::internal("the process's status is gone"))?;
    let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}
