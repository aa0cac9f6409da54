//! What happens to the body of a request on its way in: when it fails, that is the client's doing, not the service's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::body::Body as AxumBody;
use http::StatusCode;
use http_body_util::{BodyExt as _, LengthLimitError};
use trunkline_core::Error;
use trunkline_http::Body;
use trunkline_server::ProblemResponse;

const SOUND: u8 = 0;
const TOO_LARGE: u8 = 1;
const BROKEN_OFF: u8 = 2;

/// Clones watch the same body.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upload(Arc<AtomicU8>);

impl Upload {
    /// The body, to be sent on as it comes.
    pub(crate) fn watch(&self, body: AxumBody) -> Body {
        let state = Arc::clone(&self.0);
        Body::new(body.map_err(move |error| {
            let too_large = is_too_large(&error);
            state.store(
                if too_large { TOO_LARGE } else { BROKEN_OFF },
                Ordering::Relaxed,
            );
            Error::cancelled("the body of the request came to no end").with_source(error)
        }))
    }

    /// What to tell the client of it.
    pub(crate) fn problem(&self) -> Option<ProblemResponse> {
        match self.0.load(Ordering::Relaxed) {
            TOO_LARGE => Some(ProblemResponse::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is larger than this gateway takes",
            )),
            BROKEN_OFF => Some(ProblemResponse::bad_request(
                "the body could not be read to its end",
            )),
            SOUND.. => None,
        }
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        if next.is::<LengthLimitError>() {
            return true;
        }
        cause = next.source();
    }
    false
}
