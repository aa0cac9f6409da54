//! Rules that values keep, by [`garde`]: before a request is sent, and when an answer has come.

use std::any::Any;
use std::marker::PhantomData;

use garde::Validate;
use trunkline_core::{Error, Origin};

use super::answer::{Answer, Refusal};
use super::making::Making;
use crate::error::{Mismatch, ServiceError};
use crate::response::Response;

/// A kind of answer whose value is checked.
#[derive(Debug)]
pub struct Sound<K>(PhantomData<fn() -> K>);

impl<K> Answer for Sound<K>
where
    K: Answer,
    K::Output: Validate,
    <K::Output as Validate>::Context: Default,
{
    type Output = K::Output;

    const WHOLE: bool = K::WHOLE;

    const OPEN_END: bool = K::OPEN_END;

    async fn read<B: Refusal>(response: Response) -> Result<K::Output, ServiceError<B>> {
        let service = response.service().to_owned();
        let output = K::read::<B>(response).await?;
        match Mismatch::new(violations(&output)) {
            found if found.fields.is_empty() => Ok(output),
            found => {
                let error =
                    Error::invalid(format!("the answer of {service} breaks its rules: {found}"));
                let error = error
                    .with_origin(Origin::Remote)
                    .with_component(service.to_string());
                Err(error.with_source(found).into())
            }
        }
    }
}

/// A kind of answer whose error type `P` is checked, too. An answer that is of this type but breaks its rules is the case
/// that its status says, as one that is not of this type.
#[derive(Debug)]
pub struct SoundProblem<K, P>(PhantomData<fn() -> (K, P)>);

impl<K, P> Answer for SoundProblem<K, P>
where
    K: Answer,
    P: Refusal + Validate,
    P::Context: Default,
{
    type Output = K::Output;

    const WHOLE: bool = K::WHOLE;

    const OPEN_END: bool = K::OPEN_END;

    async fn read<B: Refusal>(response: Response) -> Result<K::Output, ServiceError<B>> {
        let error = match K::read::<B>(response).await {
            Err(ServiceError::Status(error)) => error,
            other => return other,
        };
        let problem = (&error.problem as &dyn Any).downcast_ref::<P>();
        match Mismatch::new(problem.map(violations).unwrap_or_default()) {
            found if found.fields.is_empty() => Err(ServiceError::Status(error)),
            found => Err(error.unfit(found)),
        }
    }
}

/// Every rule that a value breaks: the path of the field, and what is wrong.
#[must_use]
pub fn violations<T>(value: &T) -> Vec<(String, String)>
where
    T: Validate + ?Sized,
    T::Context: Default,
{
    let Err(report) = value.validate() else {
        return Vec::new();
    };
    let each = report.iter().map(|(path, error)| {
        let path = path.to_string();
        let path = if path.is_empty() {
            ".".to_owned()
        } else {
            path
        };
        (path, error.to_string())
    });
    each.collect()
}

/// Refuses to send what breaks its rules.
pub fn before<T>(making: &mut Making<'_>, value: &T)
where
    T: Validate + ?Sized,
    T::Context: Default,
{
    let found = Mismatch::new(violations(value));
    if !found.fields.is_empty() {
        let error = Error::invalid(format!(
            "the body breaks its rules and was not sent: {found}"
        ));
        making.refuse(error.with_source(found));
    }
}
