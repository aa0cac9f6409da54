//! The attribute `#[service_interface]`. Use it as `trunkline::service_interface`, where it is documented.
//!
//! `parse` reads a trait into a `Contract` and reports every mistake at once, each at its token;
//! `expand` writes one half after the other from it. What is written names `::trunkline::__private` only, and does as
//! little as it can: what is done at run time is in `trunkline_http::interface` and `trunkline_server::interface`.

mod expand;
mod parse;

use proc_macro2::TokenStream;

/// Makes of a trait the client of a service and, where asked, the server's half, a mock and an OpenAPI document.
///
/// `#[service_interface("user-service", "/api/v1", server, mock, openapi, validate, problem = ApiError, crate = path)]`:
/// the service, what every path begins with (may be left out), the halves, what the body of an answer with an error
/// status is read as (default: a problem document), and the path of the crate `trunkline`.
///
/// Of `trait Users` it makes `UsersClient`, with a function for each method that gives a call to be awaited, and
/// implements the trait for it.
///
/// # Methods
/// `#[get("/users/{user_id}")]`, `post`, `put`, `patch`, `delete`; `service = "order-service"` behind the path names
/// another service. A parameter whose name stands in the path is put there; `#[body]` (`form`, `msgpack`, `multipart`, `stream`) is
/// sent as the body (`#[body(multipart, text = "title", file = "picture")]` names parts for the OpenAPI document), `#[header("X-Tenant")]` as a header, `#[query(flatten)]` field by field; all others go to the query,
/// `#[query(default = 20)]` with a value for when it is left out.
///
/// A method returns `Result<T, ServiceError>`: a value, `Option<T>` (`None` for 404), `Response`, `Body` (a stream) or
/// `()`. Its error is `ServiceError`, `ServiceError<YourProblem>`, or any type that is `From` of one.
///
/// # Halves
/// `server`: `UsersServer::router(implementation)`, an axum router. `mock`: `UsersMock`, for tests. `openapi`:
/// `UsersOpenApi::document()`, where all types are `schemars::JsonSchema`. `validate`: bodies before they are sent, and
/// answers, keep the rules that `garde::Validate` derived for them; features `server` and `validate` of trunkline.
///
/// # Policy
/// `timeout`, `retry`, `circuit_breaker`, `bulkhead`, `rate_limit`, `hedge`, `fallback`, `cached`, `version`, `health_check` and
/// `idempotent` are the author's defaults: configuration overrides them field by field, and their order means nothing.
#[doc(alias = "service_call")]
#[doc(alias = "cached_service_call")]
#[doc(alias = "retry_on_failure")]
#[doc(alias = "health_check")]
#[proc_macro_attribute]
pub fn service_interface(
    arguments: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    interface(arguments.into(), item.into()).into()
}

fn interface(arguments: TokenStream, item: TokenStream) -> TokenStream {
    match parse::contract(arguments, item.clone()) {
        Ok(contract) => expand::all(&contract),
        Err(error) => {
            let error = error.into_compile_error();
            // The trait stays, so that who names it does not get errors that follow from this one.
            let item = parse::without_ours(item);
            quote::quote!(#error #item)
        }
    }
}
