//! One metric with labels, whose number of label sets is bounded.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Stands for every label value that came after the bound was reached.
const OVERFLOW: &str = "other";

/// Longest label value that is kept whole.
const LONGEST_VALUE: usize = 200;

/// Clones share the series.
#[derive(Debug)]
pub(super) struct Family<const N: usize, M>(Arc<Inner<N, M>>);

impl<const N: usize, M> Clone for Family<N, M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<const N: usize, M> {
    labels: [&'static str; N],
    most: usize,
    make: Box<dyn Fn() -> M + Send + Sync>,
    /// Shown only while this is set, if it is there.
    shown: Option<Arc<AtomicBool>>,
    series: Mutex<HashMap<[Box<str>; N], M>>,
}

impl<const N: usize, M> std::fmt::Debug for Inner<N, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Family")
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}

impl<const N: usize, M: Clone> Family<N, M> {
    pub(super) fn new(
        labels: [&'static str; N],
        most: usize,
        shown: Option<Arc<AtomicBool>>,
        make: impl Fn() -> M + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            labels,
            most,
            make: Box::new(make),
            shown,
            series: Mutex::default(),
        }))
    }

    /// The series of these label values; beyond the bound it is the one series called `other`.
    pub(super) fn series(&self, values: [&str; N]) -> M {
        let mut series = self.lock();
        let key = values.map(|value| Box::from(shortened(value)));
        if let Some(known) = series.get(&key) {
            return known.clone();
        }
        let key = if series.len() < self.0.most {
            key
        } else {
            [OVERFLOW; N].map(Box::from)
        };
        series.entry(key).or_insert_with(|| (self.0.make)()).clone()
    }

    /// The series of these label values alone: none where the bound leaves no room for it.
    pub(super) fn own(&self, values: [&str; N]) -> Option<M> {
        let mut series = self.lock();
        let key = values.map(|value| Box::from(shortened(value)));
        let known = series.len();
        match series.entry(key) {
            Entry::Occupied(known) => Some(known.get().clone()),
            Entry::Vacant(place) if known < self.0.most => {
                Some(place.insert((self.0.make)()).clone())
            }
            Entry::Vacant(_) => None,
        }
    }

    /// Shows the series of these label values no longer.
    pub(super) fn remove(&self, values: [&str; N]) {
        let key = values.map(|value| Box::from(shortened(value)));
        self.lock().remove(&key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[Box<str>; N], M>> {
        self.0.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shortened(value: &str) -> &str {
    value
        .get(..value.floor_char_boundary(LONGEST_VALUE))
        .unwrap_or(value)
}

impl<const N: usize, M> EncodeMetric for Family<N, M>
where
    M: Clone + EncodeMetric + TypedMetric,
{
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        // Copied first: text is written without holding up those who ask for a handle.
        let mut series: Vec<_> = self
            .lock()
            .iter()
            .map(|(values, series)| (values.clone(), series.clone()))
            .collect();
        series.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (values, series) in &series {
            let labels: [(&str, &str); N] =
                std::array::from_fn(|at| (self.0.labels[at], &*values[at]));
            series.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }

    fn is_empty(&self) -> bool {
        let hidden = self.0.shown.as_ref();
        hidden.is_some_and(|shown| !shown.load(Ordering::Relaxed)) || self.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn beyond_the_bound_everything_is_other() {
        let family: Family<1, Counter> = Family::new(["user"], 2, None, Counter::default);
        for user in ["a", "b", "c", "d", "a"] {
            family.series([user]).inc();
        }
        assert_eq!(family.series(["a"]).get(), 2);
        assert_eq!(family.series(["other"]).get(), 2);
        assert_eq!(family.lock().len(), 3);
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let family: Family<1, Counter> = Family::new(["path"], 2, None, Counter::default);
        family.series([&"ü".repeat(500)]).inc();
        let longest = family.lock().keys().map(|key| key[0].len()).max();
        assert_eq!(longest, Some(200));
    }
}
