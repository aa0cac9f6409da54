//! What a method gives of the answer that came.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;

use http::StatusCode;
use serde::de::DeserializeOwned;
use trunkline_core::Problem;

use super::fault::decode_msgpack;
use super::wire::Readable;
use crate::body::Body;
use crate::error::ServiceError;
use crate::response::Response;

/// What may stand for the body of an answer with an error status.
pub trait Refusal:
    DeserializeOwned + fmt::Debug + fmt::Display + Clone + Send + Sync + 'static
{
}

impl<B> Refusal for B where
    B: DeserializeOwned + fmt::Debug + fmt::Display + Clone + Send + Sync + 'static
{
}

/// How a method makes of an answer what it returns. A kind of answer, not a value: the types below stand for what is
/// written in the trait.
pub trait Answer {
    /// What the method returns.
    type Output: Send + 'static;

    /// Whether the answer may go on beyond the limit of the call, for as long as it moves.
    const OPEN_END: bool = false;

    /// Whether the answer is read whole, so that it belongs to the attempt.
    const WHOLE: bool = false;

    /// Reads the answer.
    fn read<B: Refusal>(
        response: Response,
    ) -> impl Future<Output = Result<Self::Output, ServiceError<B>>> + Send;
}

/// `T`: the body, as JSON or MessagePack, as it says.
#[derive(Debug)]
pub struct Value<T>(PhantomData<fn() -> T>);

impl<T: Readable + Send + 'static> Answer for Value<T> {
    type Output = T;

    const WHOLE: bool = true;

    async fn read<B: Refusal>(response: Response) -> Result<T, ServiceError<B>> {
        let response = accepted(response).await?;
        if !is_msgpack(&response) {
            return response.json().await.map_err(recast);
        }
        let service = response.service().to_owned();
        let bytes = response.bytes().await.map_err(recast)?;
        Ok(decode_msgpack(&service, &bytes)?)
    }
}

/// `Option<T>`: `None` where the service answers 404.
#[derive(Debug)]
pub struct Maybe<T>(PhantomData<fn() -> T>);

impl<T: Readable + Send + 'static> Answer for Maybe<T> {
    type Output = Option<T>;

    const WHOLE: bool = true;

    async fn read<B: Refusal>(response: Response) -> Result<Option<T>, ServiceError<B>> {
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Value::<T>::read(response).await.map(Some)
    }
}

/// `Response`: as it came, whatever its status.
#[derive(Debug)]
pub struct Raw;

impl Answer for Raw {
    type Output = Response;

    async fn read<B: Refusal>(response: Response) -> Result<Response, ServiceError<B>> {
        Ok(response)
    }
}

/// `Body`: a stream that has begun.
#[derive(Debug)]
pub struct Streamed;

impl Answer for Streamed {
    type Output = Body;

    const OPEN_END: bool = true;

    async fn read<B: Refusal>(response: Response) -> Result<Body, ServiceError<B>> {
        Ok(accepted(response).await?.into_inner().into_body())
    }
}

/// `()`: that it was done.
#[derive(Debug)]
pub struct Nothing;

impl Answer for Nothing {
    type Output = ();

    async fn read<B: Refusal>(response: Response) -> Result<(), ServiceError<B>> {
        accepted(response).await.map(drop)
    }
}

/// The answer, unless its status is an error.
async fn accepted<B: Refusal>(response: Response) -> Result<Response, ServiceError<B>> {
    // A problem document is read leniently: the status is known, whatever the body says.
    if is::<B, Problem>() {
        return response.error_for_status().await.map_err(recast);
    }
    response.error_for_status_as().await
}

fn is<A: 'static, B: 'static>() -> bool {
    std::any::TypeId::of::<A>() == std::any::TypeId::of::<B>()
}

/// An error of the general form as one of this form: the same where the forms are, and where no answer is in it.
pub(super) fn recast<B: Refusal>(error: ServiceError) -> ServiceError<B> {
    let mut error = Some(error);
    if let Some(same) = (&mut error as &mut dyn Any).downcast_mut::<Option<ServiceError<B>>>()
        && let Some(same) = same.take()
    {
        return same;
    }
    match error {
        Some(error) => trunkline_core::Error::from(error).into(),
        None => ServiceError::Other(trunkline_core::Error::internal("an error was lost")),
    }
}

pub(crate) fn is_msgpack(response: &Response) -> bool {
    let kind = response.header("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    [
        "application/msgpack",
        "application/x-msgpack",
        "application/vnd.msgpack",
    ]
    .iter()
    .any(|known| kind.eq_ignore_ascii_case(known))
}
