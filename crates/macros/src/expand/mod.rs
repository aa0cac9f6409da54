//! Writes the halves of an interface.

mod client;
mod contract;

use proc_macro2::TokenStream;
use quote::quote;

use crate::parse::Contract;

/// Everything that was asked for.
pub(crate) fn all(contract: &Contract) -> TokenStream {
    let traits = contract::expand(contract);
    let client = client::expand(contract);
    quote!(#traits #client)
}

/// The path of what generated code may name.
fn runtime(contract: &Contract) -> TokenStream {
    let krate = &contract.krate;
    quote!(#krate::__private)
}
