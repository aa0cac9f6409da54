//! What implementations return, as answers.

use std::any::Any;

use axum::body::Body as AxumBody;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use trunkline_core::{Error, Problem};
use trunkline_http::interface::{Answer, Maybe, Nothing, Raw, Refusal, Streamed, Value};
use trunkline_http::{ServiceError, StatusError};

use crate::{Json, ProblemResponse};

/// How what a method returns becomes an answer: the other side of [`Answer`].
pub trait Give: Answer {
    /// The answer; `packed` where the caller would rather have MessagePack.
    fn give(output: Self::Output, packed: bool) -> Response;
}

impl<T> Give for Value<T>
where
    Self: Answer<Output = T>,
    T: Serialize,
{
    fn give(output: T, packed: bool) -> Response {
        if !packed {
            return Json(output).into_response();
        }
        match rmp_serde::to_vec_named(&output) {
            Ok(bytes) => {
                let kind = HeaderValue::from_static("application/msgpack");
                ([(CONTENT_TYPE, kind)], bytes).into_response()
            }
            Err(cause) => {
                let error = Error::internal("an answer cannot be written as MessagePack");
                ProblemResponse::from(error.with_source(cause)).into_response()
            }
        }
    }
}

impl<T> Give for Maybe<T>
where
    Self: Answer<Output = Option<T>>,
    Value<T>: Answer<Output = T>,
    T: Serialize,
{
    fn give(output: Option<T>, packed: bool) -> Response {
        match output {
            Some(value) => Value::<T>::give(value, packed),
            None => ProblemResponse::not_found("there is no such thing").into_response(),
        }
    }
}

impl Give for Nothing {
    fn give((): (), _: bool) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

impl Give for Streamed {
    fn give(output: trunkline_http::Body, _: bool) -> Response {
        let kind = HeaderValue::from_static("application/octet-stream");
        ([(CONTENT_TYPE, kind)], AxumBody::new(output)).into_response()
    }
}

impl Give for Raw {
    fn give(output: trunkline_http::Response, _: bool) -> Response {
        output.into_inner().map(AxumBody::new)
    }
}

/// The answer to a call of a method.
pub fn answer<K, E, B>(result: Result<K::Output, E>, packed: bool) -> Response
where
    K: Give,
    E: Into<ServiceError<B>>,
    B: Refusal + Serialize,
{
    match result {
        Ok(output) => K::give(output, packed),
        Err(error) => refusal(error.into()),
    }
}

fn refusal<B: Refusal + Serialize>(error: ServiceError<B>) -> Response {
    match error {
        // Made here, to be told as it is; one that another service gave is passed on as any error of its.
        ServiceError::Status(told) if told.service.is_empty() => {
            let StatusError {
                status, problem, ..
            } = *told;
            let mut problem = Some(problem);
            let document = (&mut problem as &mut dyn Any).downcast_mut::<Option<Problem>>();
            if let Some(mut document) = document.and_then(Option::take) {
                document.status = Some(status.as_u16());
                return ProblemResponse::from(document).into_response();
            }
            (status, Json(problem)).into_response()
        }
        other => ProblemResponse::from(Error::from(other)).into_response(),
    }
}
