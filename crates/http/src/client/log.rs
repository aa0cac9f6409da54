//! One event for each call, with its duration. Of the URL only the path: a query may hold what should not stand in a log.

use std::time::Duration;

use trunkline_core::{Context, Error, Result, names};

use super::core::{Core, Endpoint};
use crate::options::Draft;
use crate::transport::Reply;

macro_rules! call_event {
    ($level:ident, $core:expr, $endpoint:expr, $seen:expr, $context:expr, $elapsed:expr, $($rest:tt)+) => {
        tracing::$level!(
            target: names::target::CALL,
            service = %$core.service,
            method = %$seen.method,
            url = $seen.uri.path(),
            endpoint = %$endpoint.name,
            duration_ms = $elapsed.as_secs_f64() * 1000.0,
            correlation_id = %$context.correlation_id(),
            trace_id = %$context.trace().trace_id(),
            $($rest)+
        )
    };
}

impl Core {
    pub(super) fn log(
        &self,
        endpoint: &Endpoint,
        seen: &Draft,
        context: &Context,
        result: &Result<Reply>,
        elapsed: Duration,
    ) {
        match result {
            Ok(response) if response.status().is_server_error() => {
                let status = response.status().as_u16();
                let message = response.status().canonical_reason().unwrap_or_default();
                call_event!(
                    warn,
                    self,
                    endpoint,
                    seen,
                    context,
                    elapsed,
                    status,
                    message,
                    "service communication error"
                );
            }
            Ok(response) if response.status().is_client_error() => {
                let status = response.status().as_u16();
                let message = response.status().canonical_reason().unwrap_or_default();
                call_event!(
                    info,
                    self,
                    endpoint,
                    seen,
                    context,
                    elapsed,
                    status,
                    message,
                    "request refused by the service"
                );
            }
            Ok(response) => {
                let status = response.status().as_u16();
                call_event!(
                    debug, self, endpoint, seen, context, elapsed, status, "call"
                );
            }
            Err(error) => {
                let kind = error.kind();
                call_event!(
                    warn, self, endpoint, seen, context, elapsed,
                    kind = %kind, message = %error.report(), "service communication error"
                );
            }
        }
    }

    /// Says in the error which call it was.
    pub(super) fn described(&self, error: Error, endpoint: &Endpoint, seen: &Draft) -> Error {
        let error = match error.component() {
            Some(_) => error,
            None => error.with_component(self.service.to_string()),
        };
        error
            .with_operation(format!("{} {}", seen.method, seen.uri.path()))
            .with_context("endpoint", &endpoint.name)
    }
}
