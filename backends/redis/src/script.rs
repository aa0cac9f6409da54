//! The scripts that run in Redis: each is one step there, all of it or nothing.

/// Which script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    Publish,
    Attach,
    Fetch,
    Settle,
    Keep,
    Leave,
    Remove,
    Lag,
    Inbox,
    Cache,
}

const ALL: [Script; 10] = [
    Script::Publish,
    Script::Attach,
    Script::Fetch,
    Script::Settle,
    Script::Keep,
    Script::Leave,
    Script::Remove,
    Script::Lag,
    Script::Inbox,
    Script::Cache,
];

/// One source of the streams' scripts: what they share, then what is its own.
macro_rules! streams {
    ($file:literal) => {
        concat!(
            include_str!("streams/lua/common.lua"),
            include_str!(concat!("streams/lua/", $file))
        )
    };
}

impl Script {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        ALL.into_iter()
    }

    /// Its place in [`ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    pub(crate) fn source(self) -> &'static str {
        match self {
            Self::Publish => streams!("publish.lua"),
            Self::Attach => streams!("attach.lua"),
            Self::Fetch => streams!("fetch.lua"),
            Self::Settle => streams!("settle.lua"),
            Self::Keep => streams!("keep.lua"),
            Self::Leave => streams!("leave.lua"),
            Self::Remove => streams!("remove.lua"),
            Self::Lag => streams!("lag.lua"),
            Self::Inbox => include_str!("inbox.lua"),
            Self::Cache => include_str!("cache.lua"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stands_where_it_is_looked_for() {
        for (place, script) in Script::all().enumerate() {
            assert_eq!(script.index(), place);
        }
    }
}
