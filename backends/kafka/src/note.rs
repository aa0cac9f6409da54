//! What is written beside a committed position: what its group knows of the partition besides.
//!
//! `trunkline since=1736418600000 handed=17 done=2,1+3`

use std::collections::BTreeMap;

use trunkline_core::{Error, Retry};

/// A note may have so many bytes: servers take 4096 (`offset.metadata.max.bytes`).
pub(crate) const LONGEST: usize = 4000;
/// What is kept free of them for all but what is done, when messages are removed.
pub(crate) const BESIDE: usize = 100;

/// What is removed is more than can be noted.
pub(crate) fn full() -> Error {
    Error::exhausted(
        "too many single messages behind the oldest one are removed already for Kafka to note them beside its position; \
         nothing was removed: handle or remove the oldest ones first",
    )
    .with_retry(Retry::Never)
}

/// What is written beside a committed position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Note {
    /// When the group began, milliseconds since 1970.
    pub(crate) since: Option<i64>,
    /// Behind the last message that was handed out. Written when a partition is given up in good order; without it, any
    /// message that was there may have been handed out.
    pub(crate) handed: Option<i64>,
    /// What is done behind the position.
    pub(crate) done: Ranges,
}

impl Note {
    /// Reads what was written beside a position.
    pub(crate) fn read(text: &str, position: i64) -> Self {
        let mut note = Self::default();
        let mut words = text.split(' ');
        if words.next() != Some("trunkline") {
            return note;
        }
        for word in words {
            match word.split_once('=') {
                Some(("since", value)) => note.since = value.parse().ok(),
                Some(("handed", value)) => note.handed = value.parse().ok(),
                Some(("done", value)) => note.done = Ranges::read(value, position),
                _ => {}
            }
        }
        note
    }

    /// As it is written beside a position, in so many bytes; and whether all that is done found room. What did not comes
    /// again after a crash.
    pub(crate) fn write(&self, position: i64, longest: usize) -> (String, bool) {
        let mut text = "trunkline".to_owned();
        if let Some(since) = self.since {
            text.push_str(&format!(" since={since}"));
        }
        if let Some(handed) = self.handed {
            text.push_str(&format!(" handed={handed}"));
        }
        let all = self.done.write(position, longest, &mut text);
        (text, all)
    }
}

/// Offsets: from one, up to before another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(BTreeMap<i64, i64>);

impl Ranges {
    pub(crate) fn insert(&mut self, from: i64, to: i64) {
        let (mut from, mut to) = (from, to);
        if from >= to {
            return;
        }
        // What it touches becomes one with it.
        while let Some((start, end)) = self.0.range(..=to).next_back().map(|(s, e)| (*s, *e)) {
            if end < from {
                break;
            }
            self.0.remove(&start);
            (from, to) = (from.min(start), to.max(end));
        }
        self.0.insert(from, to);
    }

    pub(crate) fn contains(&self, offset: i64) -> bool {
        let before = self.0.range(..=offset).next_back();
        before.is_some_and(|(_, end)| offset < *end)
    }

    /// Forgets what is below an offset.
    pub(crate) fn forget_below(&mut self, offset: i64) {
        while let Some((start, end)) = self.0.first_key_value().map(|(s, e)| (*s, *e)) {
            if start >= offset {
                return;
            }
            self.0.remove(&start);
            if end > offset {
                self.0.insert(offset, end);
            }
        }
    }

    /// The first from an offset on that is not in here.
    pub(crate) fn behind(&self, offset: i64) -> i64 {
        let before = self.0.range(..=offset).next_back();
        before.map_or(offset, |(_, end)| offset.max(*end))
    }

    /// How many there are up to before an offset.
    pub(crate) fn count_below(&self, offset: i64) -> i64 {
        let ranges = self.0.range(..offset);
        ranges.map(|(start, end)| offset.min(*end) - start).sum()
    }

    fn read(text: &str, position: i64) -> Self {
        let mut ranges = Self::default();
        let mut at = position;
        for part in text.split(',') {
            let (gap, length) = part.split_once('+').unwrap_or((part, "1"));
            let (Ok(gap), Ok(length)) = (gap.parse::<u32>(), length.parse::<u32>()) else {
                // What is not understood is not done.
                return ranges;
            };
            let from = at.saturating_add(gap.into());
            at = from.saturating_add(length.into());
            ranges.insert(from, at);
        }
        ranges
    }

    /// Distances from the position, and from one to the next; `+` a length other than 1.
    fn write(&self, position: i64, longest: usize, text: &mut String) -> bool {
        let mut at = position;
        let mut lead = " done=";
        for (from, to) in &self.0 {
            let from = (*from).max(position);
            if from >= *to {
                continue;
            }
            let (gap, length) = (from - at, to - from);
            let part = match length {
                1 => format!("{lead}{gap}"),
                _ => format!("{lead}{gap}+{length}"),
            };
            let too_far = u32::try_from(gap).is_err() || u32::try_from(length).is_err();
            if too_far || text.len() + part.len() > longest {
                return false;
            }
            text.push_str(&part);
            (at, lead) = (*to, ",");
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn ranges(offsets: impl IntoIterator<Item = i64>) -> Ranges {
        let mut ranges = Ranges::default();
        for offset in offsets {
            ranges.insert(offset, offset + 1);
        }
        ranges
    }

    #[test]
    fn notes_come_back() {
        for (since, handed) in [(None, None), (Some(5), None), (Some(5), Some(7))] {
            for done in [ranges([]), ranges([12, 14, 15, 16, 900])] {
                let note = Note {
                    since,
                    handed,
                    done,
                };
                let (text, all) = note.write(10, LONGEST);
                assert!(all);
                assert_eq!(Note::read(&text, 10), note, "{text}");
            }
        }
        let note = Note {
            done: ranges([12, 14, 15, 16]),
            ..Note::default()
        };
        assert_eq!(note.write(10, LONGEST).0, "trunkline done=2,1+3");
    }

    #[test]
    fn notes_of_others_are_none() {
        for text in [
            "",
            "since=5",
            "kafka since=5",
            "trunkline since=x what",
            "trunkline done=x",
            "trunkline done=-1",
        ] {
            assert_eq!(Note::read(text, 0), Note::default(), "{text}");
        }
        let far = "trunkline done=4294967295+4294967295";
        assert!(Note::read(far, i64::MAX - 1).done.0.len() <= 1);
    }

    #[test]
    fn a_note_that_is_too_long_says_less() {
        let note = Note {
            done: ranges((0..5000).map(|number| number * 2 + 1)),
            ..Note::default()
        };
        let (text, all) = note.write(0, LONGEST);
        assert!(!all && text.len() <= LONGEST);
        let read = Note::read(&text, 0);
        assert!(read.done.contains(1) && !read.done.contains(0) && !read.done.contains(9999));
    }

    proptest! {
        #[test]
        fn ranges_are_sets(offsets in proptest::collection::btree_set(0..60_i64, 0..40), below in 0..60_i64) {
            let mut all = ranges(offsets.iter().copied());
            for offset in 0..62 {
                prop_assert_eq!(all.contains(offset), offsets.contains(&offset));
                let next = (offset..).find(|next| !offsets.contains(next));
                prop_assert_eq!(Some(all.behind(offset)), next);
            }
            let counted = i64::try_from(offsets.range(..below).count());
            prop_assert_eq!(Ok(all.count_below(below)), counted);
            all.forget_below(below);
            let left: BTreeSet<i64> = offsets.range(below..).copied().collect();
            prop_assert_eq!(&all, &ranges(left));
            let note = Note { done: all, ..Note::default() };
            prop_assert_eq!(Note::read(&note.write(below, LONGEST).0, below), note);
        }
    }
}
