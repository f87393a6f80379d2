//! The progress of a pull: a bar for each layer on a terminal, a line for each change elsewhere.

use std::collections::HashMap;
use std::io::{self, IsTerminal};

use crate::output::{complain, say};

use berth_proto::berth::v1::layer_progress::Phase;
use berth_proto::berth::v1::{LayerProgress, PullProgress};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows progress as it comes.
pub(crate) struct Progress {
    /// Absent where there is no terminal to draw on.
    bars: Option<MultiProgress>,
    layers: HashMap<String, Layer>,
    to_stderr: bool,
}

struct Layer {
    phase: Phase,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Progress as the output that was asked for.
    pub(crate) fn on_stdout() -> Self {
        Self::new(io::stdout().is_terminal(), false)
    }

    /// Progress beside some other output.
    pub(crate) fn on_stderr() -> Self {
        Self::new(io::stderr().is_terminal(), true)
    }

    fn new(terminal: bool, to_stderr: bool) -> Self {
        let target = || {
            if to_stderr { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::stdout() }
        };
        let bars = terminal.then(|| MultiProgress::with_draw_target(target()));
        Self { bars, layers: HashMap::new(), to_stderr }
    }

    /// Shows the layers that changed.
    pub(crate) fn update(&mut self, progress: &PullProgress) {
        for layer in &progress.layers {
            self.update_layer(layer);
        }
    }

    fn update_layer(&mut self, progress: &LayerProgress) {
        let phase = progress.phase();
        let before = self.layers.get(&progress.digest).map(|layer| layer.phase);
        let name = short(&progress.digest).to_owned();
        let bars = self.bars.as_ref();
        let layer = self.layers.entry(progress.digest.clone()).or_insert_with(|| {
            let bar = bars.map(|bars| bars.add(bar(&name)));
            Layer { phase, bar }
        });
        layer.phase = phase;
        match &layer.bar {
            Some(bar) => draw(bar, progress, phase),
            None if before != Some(phase) => self.say(&format!("{name}: {}", words(phase))),
            None => {}
        }
    }

    fn say(&self, line: &str) {
        if self.to_stderr {
            complain(line);
        } else {
            say(line);
        }
    }
}

/// A layer's bar before anything is known of it.
fn bar(name: &str) -> ProgressBar {
    let bar = ProgressBar::new(0).with_prefix(name.to_owned());
    bar.set_style(style("{prefix}: {msg}"));
    bar
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file; a wrong one would show as indicatif's default.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn draw(bar: &ProgressBar, progress: &LayerProgress, phase: Phase) {
    bar.set_message(words(phase));
    match phase {
        Phase::Downloading | Phase::Extracting => {
            bar.set_style(style("{prefix}: {msg} [{bar:50}] {bytes}/{total_bytes}"));
            bar.set_length(progress.total);
            bar.set_position(progress.current);
        }
        Phase::Waiting => bar.tick(),
        Phase::Done | Phase::Exists => {
            bar.set_style(style("{prefix}: {msg}"));
            bar.finish_with_message(words(phase));
        }
    }
}

/// Docker's words.
fn words(phase: Phase) -> &'static str {
    match phase {
        Phase::Waiting => "Pulling fs layer",
        Phase::Downloading => "Downloading",
        Phase::Extracting => "Extracting",
        Phase::Done => "Pull complete",
        Phase::Exists => "Already exists",
    }
}

/// The first twelve digits, by which people tell layers and ids apart.
pub(crate) fn short(digest: &str) -> &str {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}
