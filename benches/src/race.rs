//! Comparison with peers in the same run.
//!
//! A machine is never equally fast twice, so figures of different runs are not compared: in each
//! round every peer is measured once, another one first each time, and ratios are taken within a
//! round.

use anyhow::{Context as _, Result, bail};

use crate::report::{Report, Spread, Table, short};

/// Which way a measurement is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Times, sizes.
    Lower,
    /// Operations per second.
    Higher,
}

/// Peers about to be compared.
pub struct Race<'a> {
    title: String,
    unit: String,
    better: Better,
    peers: Vec<Peer<'a>>,
}

struct Peer<'a> {
    name: String,
    measure: Box<dyn FnMut() -> Result<f64> + 'a>,
}

impl std::fmt::Debug for Race<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let peers: Vec<_> = self.peers.iter().map(|peer| peer.name.as_str()).collect();
        f.debug_struct("Race")
            .field("title", &self.title)
            .field("peers", &peers)
            .finish_non_exhaustive()
    }
}

impl<'a> Race<'a> {
    /// A comparison of values in `unit`. The first peer is ours: ratios are ours to the others.
    pub fn new(title: impl Into<String>, unit: impl Into<String>, better: Better) -> Self {
        Self {
            title: title.into(),
            unit: unit.into(),
            better,
            peers: Vec::new(),
        }
    }

    /// Adds a peer. `measure` does one measurement, its own warm-up included, and returns the value.
    /// Asynchronous peers block on a runtime of their own.
    #[must_use]
    pub fn peer(
        mut self,
        name: impl Into<String>,
        measure: impl FnMut() -> Result<f64> + 'a,
    ) -> Self {
        self.peers.push(Peer {
            name: name.into(),
            measure: Box::new(measure),
        });
        self
    }

    /// Measures each peer once a round. Progress goes to standard error.
    ///
    /// # Errors
    /// If a measurement fails or is not a positive number, or there is no peer or no round.
    pub fn run(mut self, rounds: usize) -> Result<Results> {
        let count = self.peers.len();
        if count == 0 || rounds == 0 {
            bail!("{}: nothing to compare", self.title);
        }
        let mut values: Vec<Vec<f64>> = vec![Vec::with_capacity(rounds); count];
        for round in 0..rounds {
            eprintln!("  {}: round {} of {rounds}", self.title, round + 1);
            for turn in 0..count {
                let index = (round + turn) % count;
                let (Some(peer), Some(values)) = (self.peers.get_mut(index), values.get_mut(index))
                else {
                    continue;
                };
                let value = (peer.measure)().with_context(|| format!("{} failed", peer.name))?;
                if !(value.is_finite() && value > 0.0) {
                    bail!(
                        "{} measured {value} {}, which cannot be",
                        peer.name,
                        self.unit
                    );
                }
                values.push(value);
            }
        }
        let peers = self
            .peers
            .into_iter()
            .map(|peer| peer.name)
            .zip(values)
            .collect();
        Ok(Results {
            title: self.title,
            unit: self.unit,
            better: self.better,
            peers,
        })
    }
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Results {
    title: String,
    unit: String,
    better: Better,
    peers: Vec<(String, Vec<f64>)>,
}

impl Results {
    /// The measurements of a peer.
    #[must_use]
    pub fn spread(&self, peer: &str) -> Option<Spread> {
        Spread::of(self.values(peer)?)
    }

    /// How many times better ours is than `peer`, taken round by round: above 1 ours is better.
    #[must_use]
    pub fn ratio(&self, peer: &str) -> Option<Spread> {
        let (_, ours) = self.peers.first()?;
        let ratios: Vec<f64> = ours
            .iter()
            .zip(self.values(peer)?)
            .map(|(ours, theirs)| match self.better {
                Better::Lower => theirs / ours,
                Better::Higher => ours / theirs,
            })
            .collect();
        Spread::of(&ratios)
    }

    /// Puts a table of everything and the figures into the report.
    pub fn put_into(&self, report: &mut Report) {
        let unit = &self.unit;
        let columns = [
            "who".to_owned(),
            format!("min {unit}"),
            "median".to_owned(),
            "max".to_owned(),
        ];
        let ours = "ours is better by (min / median / max)".to_owned();
        let mut table = Table::new(&self.title, columns.into_iter().chain([ours]));
        for (i, (name, _)) in self.peers.iter().enumerate() {
            let Some(spread) = self.spread(name) else {
                continue;
            };
            let ratio = match self.ratio(name) {
                Some(ratio) if i > 0 => format!("× {ratio}"),
                _ => String::new(),
            };
            let cells = [spread.min, spread.median, spread.max].map(short);
            table.row([name.clone()].into_iter().chain(cells).chain([ratio]));
            report.figure(format!("{}: {name}", self.title), unit, spread);
        }
        report.table(table);
    }

    /// Adds the target that ours is at least `at_least` times as good as `peer`.
    ///
    /// # Errors
    /// If there is no such peer.
    pub fn target(&self, report: &mut Report, peer: &str, at_least: f64) -> Result<()> {
        let ratio = self
            .ratio(peer)
            .with_context(|| format!("no peer `{peer}`"))?;
        report.target(format!("{}: against {peer}", self.title), ratio, at_least);
        Ok(())
    }

    fn values(&self, peer: &str) -> Option<&[f64]> {
        let (_, values) = self.peers.iter().find(|(name, _)| name == peer)?;
        Some(values)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn every_round_measures_each_peer_once_and_another_one_first() {
        let order = RefCell::new(String::new());
        let log = |letter: char| {
            let order = &order;
            move || {
                order.borrow_mut().push(letter);
                Ok(1.0)
            }
        };
        Race::new("t", "ns", Better::Lower)
            .peer("a", log('a'))
            .peer("b", log('b'))
            .peer("c", log('c'))
            .run(3)
            .unwrap();
        assert_eq!(order.into_inner(), "abcbcacab");
    }

    fn results(better: Better) -> Results {
        let mut ours = [10.0, 20.0, 40.0].into_iter();
        let mut theirs = [20.0, 20.0, 20.0].into_iter();
        Race::new("t", "x", better)
            .peer("ours", move || Ok(ours.next().unwrap()))
            .peer("theirs", move || Ok(theirs.next().unwrap()))
            .run(3)
            .unwrap()
    }

    #[test]
    fn ratio_above_one_means_ours_is_better() {
        let lower = results(Better::Lower).ratio("theirs").unwrap();
        assert_eq!(
            lower,
            Spread {
                min: 0.5,
                median: 1.0,
                max: 2.0
            }
        );
        let higher = results(Better::Higher);
        assert_eq!(
            higher.ratio("theirs").unwrap(),
            Spread {
                min: 0.5,
                median: 1.0,
                max: 2.0
            }
        );
        assert_eq!(
            higher.spread("ours").unwrap(),
            Spread {
                min: 10.0,
                median: 20.0,
                max: 40.0
            }
        );
        assert_eq!(higher.ratio("nobody"), None);
    }

    #[test]
    fn target_of_a_race_is_met_or_missed() {
        let mut report = Report::new();
        results(Better::Lower)
            .target(&mut report, "theirs", 1.0)
            .unwrap();
        assert!(report.targets_met());
        results(Better::Lower)
            .target(&mut report, "theirs", 1.2)
            .unwrap();
        assert!(!report.targets_met());
        assert!(
            results(Better::Lower)
                .target(&mut report, "nobody", 1.0)
                .is_err()
        );
    }

    #[test]
    fn failed_or_impossible_measurement_is_an_error() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let race = Race::new("t", "ns", Better::Lower).peer("a", move || Ok(bad));
            assert!(race.run(1).is_err(), "{bad}");
        }
        let race = Race::new("t", "ns", Better::Lower).peer("a", || bail!("broken"));
        assert!(format!("{:#}", race.run(1).unwrap_err()).contains("a failed: broken"));
        assert!(Race::new("t", "ns", Better::Lower).run(3).is_err());
    }
}
