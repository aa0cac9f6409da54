//! The trait itself, as the server's half, mocks and generic code implement and use it.

use proc_macro2::TokenStream;
use quote::quote;

use crate::parse::Contract;

pub(super) fn expand(contract: &Contract) -> TokenStream {
    let Contract {
        visibility,
        name,
        attributes,
        supertraits,
        methods,
        ..
    } = contract;
    let methods = methods.iter().map(|method| {
        let crate::parse::Method { name, docs, ok, error, .. } = method;
        let parameters = method.parameters.iter().map(|parameter| {
            let (name, ty) = (&parameter.name, &parameter.ty);
            quote!(#name: #ty)
        });
        // What `async fn` in a trait does not say: that it can be sent to another thread.
        quote! {
            #(#docs)*
            fn #name(&self #(, #parameters)*)
            -> impl ::core::future::Future<Output = ::core::result::Result<#ok, #error>> + ::core::marker::Send;
        }
    });
    quote! {
        #(#attributes)*
        #[allow(dead_code, reason = "the generated client has the same functions of its own")]
        #visibility trait #name #supertraits {
            #(#methods)*
        }
    }
}
