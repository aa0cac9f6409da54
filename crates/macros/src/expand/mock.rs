//! The mock.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};

use super::runtime;
use crate::parse::{Contract, Method, Owned};

pub(super) fn expand(contract: &Contract) -> TokenStream {
    let rt = runtime(contract);
    let Contract {
        visibility,
        name,
        methods,
        ..
    } = contract;
    let mock = format_ident!("{name}Mock");
    let title = format!("A mock of [`{name}`]: it answers as a test says.");
    let fields = methods.iter().map(|method| {
        let Method {
            name, ok, error, ..
        } = method;
        let arguments = arguments(method);
        quote!(#name: #rt::mock::Stub<#arguments, #ok, #error>)
    });
    let stubs = methods.iter().map(|Method { name: method, .. }| {
        let text = format!("{name}::{method}");
        quote!(#method: #rt::mock::Stub::new(#text))
    });
    let each = methods.iter().map(|method| expectation(contract, method));
    let names = methods.iter().map(|method| &method.name);
    let answers = methods.iter().map(|method| {
        let Method {
            name, ok, error, ..
        } = method;
        let typed = method.parameters.iter().map(|parameter| {
            let (name, ty) = (&parameter.name, &parameter.ty);
            quote!(#name: #ty)
        });
        let kept = method.parameters.iter().map(|parameter| {
            let (name, owned) = (&parameter.name, Owned::of(&parameter.ty));
            match (owned.lent, owned.lent_within) {
                (true, _) => quote!(::std::borrow::ToOwned::to_owned(#name)),
                (_, true) => quote!(#name.map(::std::borrow::ToOwned::to_owned)),
                _ => quote!(#name),
            }
        });
        let kept: Vec<TokenStream> = kept.collect();
        let kept = one_or_tuple(&kept);
        quote! {
            async fn #name(&self #(, #typed)*) -> ::core::result::Result<#ok, #error> {
                self.#name.call(#kept)
            }
        }
    });
    quote! {
        #[doc = #title]
        ///
        /// Calls that are not expected, and expected ones that do not come, end the test with what was called. Clones
        /// are the same mock.
        #[derive(::core::clone::Clone, ::core::fmt::Debug)]
        #visibility struct #mock {
            #(#fields,)*
        }

        #[allow(dead_code, clippy::new_without_default, reason = "generated")]
        impl #mock {
            /// A mock that expects nothing.
            #[must_use]
            #visibility fn new() -> Self {
                Self { #(#stubs,)* }
            }

            /// Checks now what is checked when the mock goes: that all came that was expected.
            ///
            /// # Panics
            /// When it did not, or when something else came.
            #visibility fn verify(&self) {
                let mut problems = ::std::vec::Vec::<::std::string::String>::new();
                #(problems.extend(self.#names.problems());)*
                ::core::assert!(problems.is_empty(), "{}", problems.join("\n"));
            }

            #(#each)*
        }

        impl #name for #mock {
            #(#answers)*
        }
    }
}

fn expectation(contract: &Contract, method: &Method) -> TokenStream {
    let rt = runtime(contract);
    let visibility = &contract.visibility;
    let Method {
        name, ok, error, ..
    } = method;
    let (expect, calls) = (
        format_ident!("expect_{name}"),
        format_ident!("{name}_calls"),
    );
    let arguments = arguments(method);
    let about =
        format!("Expects calls of `{name}`: say of which, how many, and what they are answered.");
    let told = format!("The arguments of every call of `{name}` so far.");
    quote! {
        #[doc = #about]
        #visibility fn #expect(&self) -> #rt::mock::Expect<'_, #arguments, #ok, #error> {
            self.#name.expect()
        }

        #[doc = #told]
        #[must_use]
        #visibility fn #calls(&self) -> ::std::vec::Vec<::std::string::String> {
            self.#name.calls()
        }
    }
}

/// The arguments as one value: of one itself, of several a tuple.
fn arguments(method: &Method) -> TokenStream {
    let types = method.parameters.iter().map(|parameter| {
        let ty = Owned::of(&parameter.ty).ty;
        quote!(#ty)
    });
    let types: Vec<TokenStream> = types.collect();
    one_or_tuple(&types)
}

fn one_or_tuple(parts: &[TokenStream]) -> TokenStream {
    match parts {
        [one] => one.clone(),
        several => quote!((#(#several),*)),
    }
}
