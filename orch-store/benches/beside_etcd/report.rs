//! Medians, and how they stand to one of the stores.

use std::{collections::BTreeMap, time::Duration};

use crate::load::Outcome;

/// What was measured, by store.
#[derive(Default)]
pub(crate) struct Figures(BTreeMap<&'static str, Vec<Outcome>>);

impl Figures {
    pub(crate) fn add(&mut self, store: &'static str, outcome: Outcome) {
        self.0.entry(store).or_default().push(outcome);
    }

    fn median(&self, store: &str) -> Option<(f64, Duration, Duration)> {
        let outcomes = self.0.get(store)?;
        Some((
            median(outcomes.iter().map(|outcome| outcome.rate)),
            median(outcomes.iter().map(|outcome| outcome.p50)),
            median(outcomes.iter().map(|outcome| outcome.p99)),
        ))
    }
}

fn median<T: PartialOrd + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_by(|a, b| a.partial_cmp(b).expect("no value is not a number"));
    values[values.len() / 2]
}

/// Prints a table of medians with the ratios to `peer`.
pub(crate) fn print(title: &str, figures: &Figures, peer: &str) {
    println!("\n{title}");
    let peer = figures.median(peer);
    for store in figures.0.keys() {
        let Some((rate, p50, p99)) = figures.median(store) else { continue };
        let ratios = peer.map_or(String::new(), |(peer_rate, _, peer_p99)| {
            let p99_ratio = p99.as_secs_f64() / peer_p99.as_secs_f64();
            format!("  {:5.1} times the rate, {p99_ratio:.2} times the p99", rate / peer_rate)
        });
        println!("  {store:24} {rate:9.0}/s  p50 {p50:9.1?}  p99 {p99:9.1?}{ratios}");
    }
}
