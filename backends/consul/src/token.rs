//! The token of Consul's access control, which may stand in a file that others write.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use tokio::time::Instant;
use trunkline_core::{Error, Result, Secret};

/// The file is not looked at more often than this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The longest file that is a token's.
const LONGEST: u64 = 4096;

pub(crate) enum Token {
    None,
    Fixed(HeaderValue),
    File(TokenFile),
}

pub(crate) struct TokenFile {
    path: PathBuf,
    known: Mutex<Option<Known>>,
}

#[derive(Clone)]
struct Known {
    value: HeaderValue,
    stamp: (SystemTime, u64),
    looked: Instant,
}

impl Token {
    pub(crate) fn new(fixed: Option<&Secret<String>>, file: Option<PathBuf>) -> Result<Self> {
        match (fixed, file) {
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
            Self::File(file) => file.current(LOOK_AGAIN).await.map(Some),
        }
    }

    /// Another token than the one that was refused, if the file has one by now.
    pub(crate) async fn instead_of(&self, refused: Option<&HeaderValue>) -> Option<HeaderValue> {
        let Self::File(file) = self else { return None };
        let newer = file.current(Duration::ZERO).await.ok()?;
        (Some(&newer) != refused).then_some(newer)
    }
}

impl TokenFile {
    async fn current(&self, no_older_than: Duration) -> Result<HeaderValue> {
        let known = self.known().clone();
        if let Some(known) = &known
            && known.looked.elapsed() < no_older_than
        {
            return Ok(known.value.clone());
        }
        match self.look(known.as_ref()).await {
            Ok(now) => {
                let value = now.value.clone();
                *self.known() = Some(now);
                Ok(value)
            }
            // Who replaces a file may leave a moment without one: the token that was good is used meanwhile.
            Err(error) => known.map(|known| known.value).ok_or(error),
        }
    }

    async fn look(&self, known: Option<&Known>) -> Result<Known> {
        let failed = |error: std::io::Error| {
            let path = self.path.display();
            Error::config(format!("token_file: {path} cannot be read")).with_source(error)
        };
        let file = tokio::fs::metadata(&self.path).await.map_err(failed)?;
        let stamp = (file.modified().map_err(failed)?, file.len());
        if let Some(known) = known
            && known.stamp == stamp
        {
            return Ok(Known {
                looked: Instant::now(),
                ..known.clone()
            });
        }
        if file.len() > LONGEST {
            let path = self.path.display();
            return Err(Error::config(format!(
                "token_file: {path} is too long to be a token"
            )));
        }
        let text = tokio::fs::read_to_string(&self.path)
            .await
            .map_err(failed)?;
        Ok(Known {
            value: header(text.trim())?,
            stamp,
            looked: Instant::now(),
        })
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn header(token: &str) -> Result<HeaderValue> {
    let refused =
        || Error::config("the token of Consul must be a line of visible ASCII characters");
    if token.is_empty() {
        return Err(refused());
    }
    let mut value = HeaderValue::from_str(token).map_err(|_| refused())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_in_a_file_is_read_again_when_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "one\n").unwrap();
        let token = Token::new(None, Some(path.clone())).unwrap();
        let first = token.current().await.unwrap().unwrap();
        assert_eq!(first, "one");
        assert!(token.instead_of(Some(&first)).await.is_none());
        std::fs::write(&path, "number two").unwrap();
        // A refusal looks at once, everything else within a second.
        assert_eq!(token.instead_of(Some(&first)).await.unwrap(), "number two");
        assert_eq!(token.current().await.unwrap().unwrap(), "number two");
        std::fs::remove_file(&path).unwrap();
        tokio::time::advance(LOOK_AGAIN * 2).await;
        assert_eq!(token.current().await.unwrap().unwrap(), "number two");
    }

    #[tokio::test]
    async fn a_file_without_a_token_is_a_mistake() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let token = Token::new(None, Some(path.clone())).unwrap();
        let error = token.current().await.unwrap_err();
        assert_eq!(error.kind(), trunkline_core::ErrorKind::Config);
        std::fs::write(&path, "two\nlines").unwrap();
        let error = token.current().await.unwrap_err();
        assert!(
            !error.report().to_string().contains("lines"),
            "{}",
            error.report()
        );
    }
}
