//! `berth system check`

use std::fmt::Write as _;
use std::io::{self, IsTerminal};

use berth_proto::berth::v1::check_response::Message;
use berth_proto::berth::v1::damage::Kind;
use berth_proto::berth::v1::{CheckRequest, CheckSummary, Damage, Repair};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::client::Daemon;
use crate::commands::missing;
use crate::failure::Outcome;
use crate::human::{printable, size};
use crate::output::say;

/// Verify all blobs, layers and records, and repair them
///
/// Looks at everything that the daemon keeps, of all namespaces, while it goes on working. Each
/// damaged thing is named. The exit status is 1 when something is damaged and stays so, else 0.
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// Fetch damaged blobs again, make damaged layers again, remove what no record names
    #[arg(long)]
    repair: bool,
}

impl Check {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let request = CheckRequest { repair: self.repair };
        let mut messages = daemon.system().await?.check(request).await?.into_inner();
        let bar = bar();
        let mut summary = None;
        while let Some(message) = messages.message().await? {
            match message.message {
                Some(Message::Progress(progress)) => {
                    bar.set_length(progress.total);
                    bar.set_position(progress.current);
                }
                Some(Message::Damage(damage)) => bar.suspend(|| say(describe(&damage))),
                Some(Message::Repair(repair)) => bar.suspend(|| say(told(&repair, daemon))),
                Some(Message::Summary(last)) => summary = Some(last),
                None => {}
            }
        }
        bar.finish_and_clear();
        let summary = summary.ok_or_else(|| missing("summary"))?;
        say(conclude(&summary, self.repair));
        Ok(i32::from(summary.damaged > summary.repaired))
    }
}

/// Progress beside the findings, where there is a terminal.
fn bar() -> ProgressBar {
    let target = match io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style = ProgressStyle::with_template("Checking [{bar:50}] {bytes}/{total_bytes}");
    // The template is a constant; a wrong one would show as indicatif's default.
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
    ProgressBar::with_draw_target(Some(0), target).with_style(style)
}

/// What a thing is called.
fn name(damage: &Damage) -> String {
    let id = printable(&damage.id);
    match damage.kind() {
        Kind::Blob => format!("blob {id}"),
        Kind::Layer => format!("layer {id} ({}, {})", damage.namespace, damage.snapshotter),
        Kind::Snapshot => format!("snapshot {id} ({}, {})", damage.namespace, damage.snapshotter),
        Kind::Stray => format!("file {id}"),
        Kind::Unknown => id,
    }
}

fn describe(damage: &Damage) -> String {
    let mut line = format!("{}: {}", name(damage), printable(&damage.fault));
    if !damage.images.is_empty() {
        let images: Vec<_> = damage.images.iter().map(|image| printable(image)).collect();
        let _ = write!(line, "; used by {}", images.join(", "));
    }
    line
}

fn told(repair: &Repair, daemon: &Daemon) -> String {
    let verdict = if repair.done { "repaired" } else { "not repaired" };
    let damage = repair.damage.clone().unwrap_or_default();
    let mut line = format!("{verdict}: {}: {}", name(&damage), printable(&repair.outcome));
    if !repair.containers.is_empty() {
        let tenant = match damage.namespace == daemon.namespace() {
            true => String::new(),
            false => format!("-n {} ", damage.namespace),
        };
        let _ = write!(
            line,
            "; restart what goes on with the damaged one: berth {tenant}restart {}",
            repair.containers.join(" ")
        );
    }
    line
}

fn conclude(summary: &CheckSummary, repair: bool) -> String {
    let CheckSummary { blobs, snapshots, images, damaged, repaired, .. } = summary;
    let mut text = format!("{blobs} blobs, {snapshots} snapshots and {images} images: ");
    text += &match (damaged, repair) {
        (0, _) => "all whole".to_owned(),
        (damaged, false) => format!("{damaged} damaged; 'berth system check --repair' mends them"),
        (damaged, true) => format!("{damaged} damaged, {repaired} repaired"),
    };
    if summary.unused > 0 {
        let _ = write!(
            text,
            "\n{} blobs ({}) belong to no image: an interrupted pull goes on with them, or they go \
             by themselves",
            summary.unused,
            size(summary.unused_bytes)
        );
    }
    text
}
