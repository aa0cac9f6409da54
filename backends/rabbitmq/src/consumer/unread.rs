//! What came and was given back, or lost with its connection, before anybody had it.
//!
//! A queue that counts deliveries counts these, too. They are no deliveries to whoever subscribes: a message that lay behind
//! others while the server was restarted again and again would be given up for one that ends its consumers. What other
//! processes had unread is not known here.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Messages that are remembered; what is forgotten is counted as the server counts it.
const MOST: usize = 20_000;

/// How often messages went back unread, by their ids.
#[derive(Debug, Default)]
pub(super) struct Unread(Mutex<HashMap<String, u32>>);

impl Unread {
    fn counts(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more time.
    pub(super) fn add(&self, id: String) {
        let mut counts = self.counts();
        if counts.len() >= MOST && !counts.contains_key(&id) {
            return;
        }
        let count = counts.entry(id).or_default();
        *count = count.saturating_add(1);
    }

    /// How often.
    pub(super) fn of(&self, id: &str) -> u32 {
        self.counts().get(id).copied().unwrap_or(0)
    }

    /// The message is done, or another copy of it begins anew.
    pub(super) fn forget(&self, id: &str) {
        self.counts().remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_so_many_and_no_more() {
        let unread = Unread::default();
        for number in 0..=MOST {
            unread.add(number.to_string());
        }
        unread.add("0".to_owned());
        assert_eq!((unread.of("0"), unread.of(&MOST.to_string())), (2, 0));
        unread.forget("0");
        assert_eq!(unread.of("0"), 0);
        unread.add(MOST.to_string());
        assert_eq!(unread.of(&MOST.to_string()), 1, "there is room again");
    }
}
