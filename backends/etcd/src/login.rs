//! The token that a login gives, shared by all requests and renewed when it is no longer taken.

use std::sync::{Mutex, MutexGuard, PoisonError};

use http::HeaderValue;
use serde::Deserialize;
use trunkline_core::{Error, Result, Secret};

use crate::config::EtcdConfig;

pub(crate) struct Login {
    credentials: Option<(String, Secret<String>)>,
    token: Mutex<Option<HeaderValue>>,
    /// One login at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

#[derive(Deserialize)]
struct Answer {
    token: String,
}

impl Login {
    pub(crate) fn new(config: &EtcdConfig) -> Self {
        Self {
            credentials: config.username.clone().zip(config.password.clone()),
            token: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn is_needed(&self) -> bool {
        self.credentials.is_some()
    }

    /// What is sent to log in.
    pub(crate) fn request(&self) -> serde_json::Value {
        match &self.credentials {
            Some((name, password)) => {
                serde_json::json!({ "name": name, "password": password.expose() })
            }
            None => serde_json::Value::Null,
        }
    }

    pub(crate) fn token(&self) -> Option<HeaderValue> {
        self.known().clone()
    }

    /// Takes what a login was answered with.
    pub(crate) fn take(&self, body: &[u8]) -> Result<()> {
        let odd = || Error::internal("the answer of etcd to a login is not understood");
        let answer: Answer = serde_json::from_slice(body).map_err(|_| odd())?;
        let mut token = HeaderValue::from_str(&answer.token).map_err(|_| odd())?;
        token.set_sensitive(true);
        *self.known() = Some(token);
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Option<HeaderValue>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
