//! Repeated figures of one thing.

use std::time::{Duration, Instant};

use anyhow::Result;

/// Figures in the order they were taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Adds one figure.
    pub(crate) fn add(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// Adds a time, in milliseconds.
    pub(crate) fn add_time(&mut self, time: Duration) {
        self.add(time.as_secs_f64() * 1e3);
    }

    /// Whether there is no figure.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The middle figure; zero when there is none.
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    /// The least and the most.
    pub(crate) fn range(&self) -> (f64, f64) {
        let sorted = self.sorted();
        let first = sorted.first().copied().unwrap_or_default();
        (first, sorted.last().copied().unwrap_or_default())
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(figures: I) -> Self {
        Self(figures.into_iter().collect())
    }
}

/// How long `action` takes, in milliseconds.
pub(crate) fn time<T>(action: impl FnOnce() -> Result<T>) -> Result<f64> {
    let start = Instant::now();
    action()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Takes `runs` figures of each contender in turn, after one that is not counted. A contender
/// without a figure has none of this measure.
pub(crate) fn alternate<C>(
    runs: usize,
    contenders: &[C],
    mut take: impl FnMut(&C) -> Result<Option<f64>>,
) -> Result<Vec<Samples>> {
    let mut samples = vec![Samples::default(); contenders.len()];
    for run in 0..=runs {
        for (contender, samples) in contenders.iter().zip(&mut samples) {
            let figure = take(contender)?;
            if run > 0 {
                figure.into_iter().for_each(|figure| samples.add(figure));
            }
        }
    }
    Ok(samples)
}
