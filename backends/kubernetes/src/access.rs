//! The token that requests carry, which may stand in a file that others write, or be what a program says.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;
use trunkline_core::{Error, Result, Secret};

use crate::plugin::Plugin;

/// The file is not read more often than this; Kubernetes writes it anew an hour before its token ends.
const READ_AGAIN: Duration = Duration::from_secs(10);
/// The longest token.
const LONGEST: usize = 64 * 1024;

pub(crate) enum Access {
    /// A client certificate, or nobody.
    None,
    Fixed(HeaderValue),
    File(TokenFile),
    Plugin(Box<Plugin>),
}

pub(crate) struct TokenFile {
    path: PathBuf,
    known: Mutex<Option<(HeaderValue, Instant)>>,
}

impl Access {
    pub(crate) fn new(token: Option<&Secret<String>>, file: Option<PathBuf>) -> Result<Self> {
        match (token, file) {
            (Some(token), _) => Ok(Self::Fixed(header(token.expose())?)),
            (None, Some(path)) => Ok(Self::File(TokenFile {
                path,
                known: Mutex::default(),
            })),
            (None, None) => Ok(Self::None),
        }
    }

    /// The token now.
    pub(crate) async fn current(&self) -> Result<Option<HeaderValue>> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(token) => Ok(Some(token.clone())),
            Self::File(file) => file.current(READ_AGAIN).await.map(Some),
            Self::Plugin(plugin) => plugin.current().await.map(Some),
        }
    }

    /// Another token than the one that was refused, if there is one by now.
    pub(crate) async fn instead_of(&self, refused: Option<&HeaderValue>) -> Option<HeaderValue> {
        match self {
            Self::None | Self::Fixed(_) => None,
            Self::File(file) => {
                let newer = file.current(Duration::ZERO).await.ok()?;
                (Some(&newer) != refused).then_some(newer)
            }
            Self::Plugin(plugin) => plugin.instead_of(refused).await,
        }
    }
}

impl TokenFile {
    async fn current(&self, no_older_than: Duration) -> Result<HeaderValue> {
        let known = self.known().clone();
        if let Some((token, at)) = &known
            && at.elapsed() < no_older_than
        {
            return Ok(token.clone());
        }
        match self.read().await {
            Ok(token) => {
                *self.known() = Some((token.clone(), Instant::now()));
                Ok(token)
            }
            // Who replaces a file may leave a moment without one: the token that was good is used meanwhile.
            Err(error) => known.map(|(token, _)| token).ok_or(error),
        }
    }

    async fn read(&self) -> Result<HeaderValue> {
        let text = tokio::fs::read_to_string(&self.path)
            .await
            .map_err(|error| {
                let path = self.path.display();
                Error::config(format!("token_file: {path} cannot be read")).with_source(error)
            })?;
        header(text.trim())
    }

    fn known(&self) -> MutexGuard<'_, Option<(HeaderValue, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn header(token: &str) -> Result<HeaderValue> {
    let sound = !token.is_empty() && token.len() <= LONGEST;
    let value = HeaderValue::from_str(&format!("Bearer {token}"))
        .ok()
        .filter(|_| sound);
    let mut value = value.ok_or_else(|| {
        Error::config("the token of Kubernetes is empty, too long or has odd characters")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_file_is_read_again_after_a_while_and_at_once_when_its_token_was_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "one\n").unwrap();
        let access = Access::new(None, Some(path.clone())).unwrap();
        let one = access.current().await.unwrap().unwrap();
        assert_eq!(one, "Bearer one");
        std::fs::write(&path, "two\n").unwrap();
        assert_eq!(access.current().await.unwrap().unwrap(), "Bearer one");
        let two = access.instead_of(Some(&one)).await.unwrap();
        assert_eq!(two, "Bearer two");
        assert_eq!(access.instead_of(Some(&two)).await, None);
        std::fs::write(&path, "three").unwrap();
        tokio::time::advance(READ_AGAIN).await;
        assert_eq!(access.current().await.unwrap().unwrap(), "Bearer three");
        std::fs::remove_file(&path).unwrap();
        tokio::time::advance(READ_AGAIN).await;
        assert_eq!(access.current().await.unwrap().unwrap(), "Bearer three");
        let absent = Access::new(None, Some(path)).unwrap();
        assert!(absent.current().await.is_err());
    }
}
