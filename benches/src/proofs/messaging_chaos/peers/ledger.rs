//! What was confirmed, what was handled, and in which order.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::time::Instant;

/// A message, by its key and its number within the key.
pub(super) type Numbered = (u32, u32);

/// Consumers append a line to one file for each message that they handle: who it was, the key, the number.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    /// As far as the file has been read.
    offset: u64,
    confirmed: u64,
    handled: HashMap<Numbered, u32>,
    latest: HashMap<u32, u32>,
    /// Confirmed and not handled, and since when.
    waiting: HashMap<Numbered, Instant>,
    /// Handled for the first time after a later one of the same key.
    pub(super) disordered: u64,
}

impl Ledger {
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let path = directory.join("handled");
        File::create(&path)?;
        Ok(Self {
            path,
            offset: 0,
            confirmed: 0,
            handled: HashMap::new(),
            latest: HashMap::new(),
            waiting: HashMap::new(),
            disordered: 0,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes the confirm of a message, once for each.
    pub(super) fn confirm(&mut self, numbered: Numbered, now: Instant) {
        self.confirmed += 1;
        if !self.handled.contains_key(&numbered) {
            self.waiting.insert(numbered, now);
        }
    }

    /// Whether a message that was confirmed between these times is not handled.
    pub(super) fn has_left(&self, after: Instant, before: Instant) -> bool {
        let between = |at: &Instant| *at > after && *at < before;
        self.waiting.values().any(between)
    }

    /// Reads what was handled since the last time; says by whom.
    pub(super) fn read(&mut self) -> Result<Vec<u32>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let mut by = Vec::new();
        // The last line may be half of one.
        for line in text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
        {
            self.offset += line.len() as u64;
            let mut words = line.split_whitespace().map(str::parse);
            let mut next = || words.next().and_then(Result::ok);
            let line = || format!("a line of {}: {line:?}", self.path.display());
            let who = next().with_context(line)?;
            let key = next().with_context(line)?;
            let seq = next().with_context(line)?;
            by.push(who);
            self.handle((key, seq));
        }
        Ok(by)
    }

    fn handle(&mut self, numbered: Numbered) {
        let (key, seq) = numbered;
        self.waiting.remove(&numbered);
        let times = self.handled.entry(numbered).or_default();
        *times += 1;
        if *times == 1 {
            let latest = self.latest.entry(key).or_insert(seq);
            self.disordered += u64::from(seq < *latest);
            *latest = seq.max(*latest);
        }
    }

    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// How many are confirmed and not handled.
    pub(super) fn missing(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// How many with this number, of any key, are handled.
    pub(super) fn handled_of(&self, seq: u32) -> usize {
        let of = self.handled.keys().filter(|(_, handled)| *handled == seq);
        of.count()
    }

    /// Runs of the handler beyond one for each message.
    pub(super) fn repeated(&self) -> u64 {
        let beyond = self.handled.values().map(|times| u64::from(times - 1));
        beyond.sum()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;

    #[test]
    fn lost_repeated_and_disordered_messages_are_counted() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let mut ledger = Ledger::open(directory.path())?;
        let now = Instant::now();
        for numbered in [(1, 0), (1, 1), (1, 2), (2, 0)] {
            ledger.confirm(numbered, now);
        }
        let mut file = OpenOptions::new().append(true).open(ledger.path())?;
        file.write_all(b"7 1 1\n7 1 0\n8 1 1\n8 1")?;
        assert_eq!(ledger.read()?, [7, 7, 8]);
        assert_eq!(ledger.missing(), 2);
        file.write_all(b" 2\n")?;
        assert_eq!(ledger.read()?, [8]);
        assert_eq!(ledger.missing(), 1);
        let second = Duration::from_secs(1);
        assert!(ledger.has_left(now - second, now + second));
        assert!(!ledger.has_left(now, now + second));
        assert_eq!(ledger.repeated(), 1);
        // One that comes again is no disorder.
        assert_eq!(ledger.disordered, 1);
        assert_eq!(ledger.handled_of(0), 1);
        // Handled before its confirm was read.
        file.write_all(b"7 3 0\n")?;
        ledger.read()?;
        ledger.confirm((3, 0), now);
        assert_eq!(ledger.missing(), 1);
        Ok(())
    }
}
