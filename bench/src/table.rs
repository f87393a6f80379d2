//! The table of all measures.

use crate::peer::Peer;
use crate::samples::Samples;

/// One line for each measure, one column for each engine.
pub(crate) struct Table {
    peers: Vec<&'static str>,
    rows: Vec<String>,
}

/// How the figures of a measure compare.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    /// Times and sizes.
    Less,
    /// Rates.
    More,
}

impl Table {
    /// An empty table with a column for each of `peers`.
    pub(crate) fn new(peers: &[Peer]) -> Self {
        Self { peers: peers.iter().map(Peer::name).collect(), rows: Vec::new() }
    }

    /// Adds a measure: its figures in the order of the peers, and the figure of the floor or limit
    /// where there is one. An engine without a figure has no samples.
    pub(crate) fn add(
        &mut self,
        name: &str,
        unit: &str,
        better: Better,
        figures: &[Samples],
        floor: Option<&Samples>,
    ) {
        let Some(ours) = figures.first().map(Samples::median) else { return };
        let mut cells = vec![format!("{name}, {unit}")];
        for (index, samples) in figures.iter().enumerate() {
            if samples.is_empty() {
                cells.push("–".to_owned());
                continue;
            }
            let mut cell = show(samples);
            if index > 0 && ours > 0.0 && samples.median() > 0.0 {
                let ratio = match better {
                    Better::Less => samples.median() / ours,
                    Better::More => ours / samples.median(),
                };
                cell += &format!(" = {ratio:.1}×");
            }
            cells.push(cell);
        }
        cells.push(floor.map_or_else(String::new, |floor| {
            let ratio = match better {
                Better::Less => ours / floor.median(),
                Better::More => floor.median() / ours,
            };
            format!("{}; berth {ratio:.2}×", show(floor))
        }));
        let row = format!("| {} |", cells.join(" | "));
        eprintln!("{row}");
        self.rows.push(row);
    }

    /// Prints the table in Markdown.
    pub(crate) fn print(&self) {
        println!("| measure | {} | floor or limit |", self.peers.join(" | "));
        println!("|---|{}", "---|".repeat(self.peers.len() + 1));
        for row in &self.rows {
            println!("{row}");
        }
    }
}

/// The median, and the range behind it.
fn show(samples: &Samples) -> String {
    let (least, most) = samples.range();
    let decimals = if samples.median() < 100.0 { 1 } else { 0 };
    format!("{:.decimals$} ({least:.decimals$}–{most:.decimals$})", samples.median())
}
