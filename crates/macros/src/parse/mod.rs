//! Reads a trait and its attributes.

mod arguments;
mod duration;
mod method;
mod parameter;
mod policy;
mod template;
mod types;

use proc_macro2::{Span, TokenStream};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Ident, ItemTrait, Path, Result, TraitItem, Visibility};

pub(crate) use arguments::Halves;
pub(crate) use method::{Answer, Method, may_have_rules};
pub(crate) use parameter::{BodyKind, Parameter, Part, Place, QueryKind, tokens as default_tokens};
pub(crate) use template::Segment;
pub(crate) use types::{Owned, kept_item};

/// An interface as it was read.
pub(crate) struct Contract {
    /// Of the crate `trunkline`.
    pub(crate) krate: Path,
    pub(crate) service: String,
    pub(crate) base_path: String,
    pub(crate) halves: Halves,
    pub(crate) visibility: Visibility,
    pub(crate) name: Ident,
    /// Documentation, and what else stands at the trait.
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) supertraits: TokenStream,
    pub(crate) methods: Vec<Method>,
}

/// Reads an interface.
///
/// # Errors
/// Every mistake, each at its token.
pub(crate) fn contract(arguments: TokenStream, item: TokenStream) -> Result<Contract> {
    let arguments = syn::parse2::<arguments::Arguments>(arguments)?;
    let item: ItemTrait = syn::parse2(item).map_err(|error| {
        Error::new(
            error.span(),
            "`#[service_interface]` stands at a trait: each method is a call",
        )
    })?;
    let mut mistakes = Mistakes::default();
    let generics = &item.generics;
    if !generics.params.is_empty() {
        mistakes.add(
            generics,
            "an interface has no parameters of its own: write the types out",
        );
    }
    let mut methods: Vec<Method> = Vec::new();
    for part in &item.items {
        let TraitItem::Fn(function) = part else {
            mistakes.add(part, "an interface has methods only");
            continue;
        };
        match Method::read(function, &arguments.base_path, arguments.problem.as_ref()) {
            Ok(method) => methods.push(method),
            Err(error) => mistakes.push(error),
        }
    }
    if item.items.is_empty() {
        mistakes.add(&item.ident, "an interface without methods calls nothing");
    }
    for (index, method) in methods.iter().enumerate() {
        let before = methods.get(..index).unwrap_or_default();
        if let Some(same) = before.iter().find(|known| known.is_same_request(method)) {
            let text = format!(
                "`{}` and `{}` are the same request: {} {}",
                same.name,
                method.name,
                method.verb.as_str(),
                method.template.text
            );
            mistakes.push(Error::new(method.template.span, text));
        }
    }
    check_halves(&arguments.halves, &methods, &mut mistakes);
    mistakes.into_result()?;
    let supertraits = &item.supertraits;
    Ok(Contract {
        krate: arguments
            .krate
            .unwrap_or_else(|| syn::parse_quote!(::trunkline)),
        service: arguments.service,
        base_path: arguments.base_path,
        halves: arguments.halves,
        supertraits: match item.supertraits.is_empty() {
            true => TokenStream::new(),
            false => quote::quote!(: #supertraits),
        },
        visibility: item.vis,
        name: item.ident,
        attributes: item.attrs,
        methods,
    })
}

/// What a client can do and another half cannot.
fn check_halves(halves: &Halves, methods: &[Method], mistakes: &mut Mistakes) {
    if halves.server.is_some() {
        for method in methods.iter().filter(|method| method.service.is_some()) {
            let text = "the server's half answers for one service: leave `service` out, or make two traits";
            mistakes.at(method.template.span, text);
        }
    }
    if halves.server.is_none() && halves.mock.is_none() && halves.openapi.is_none() {
        return;
    }
    for parameter in methods.iter().flat_map(|method| &method.parameters) {
        if types::lends_within(&parameter.ty) {
            let text = "the server's half, mocks and documents keep arguments: only the whole may be borrowed, as `&str`, `&[T]` or `&T`";
            mistakes.add(&parameter.ty, text);
        }
    }
}

/// The trait without the attributes that only this macro knows.
pub(crate) fn without_ours(item: TokenStream) -> TokenStream {
    let Ok(mut item) = syn::parse2::<ItemTrait>(item) else {
        return TokenStream::new();
    };
    for part in &mut item.items {
        let TraitItem::Fn(function) = part else {
            continue;
        };
        function.attrs.retain(method::is_foreign);
        for argument in &mut function.sig.inputs {
            if let syn::FnArg::Typed(argument) = argument {
                argument
                    .attrs
                    .retain(|attribute| !parameter::is_ours(attribute));
            }
        }
    }
    quote::quote!(#[allow(async_fn_in_trait, dead_code, reason = "not expanded")] #item)
}

/// Mistakes, so that all are told at once.
#[derive(Default)]
pub(crate) struct Mistakes(Option<Error>);

impl Mistakes {
    pub(crate) fn add(&mut self, place: impl quote::ToTokens, text: impl std::fmt::Display) {
        self.push(Error::new_spanned(place, text));
    }

    pub(crate) fn at(&mut self, place: Span, text: impl std::fmt::Display) {
        self.push(Error::new(place, text));
    }

    pub(crate) fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(all) => all.combine(error),
            none => *none = Some(error),
        }
    }

    pub(crate) fn take<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    pub(crate) fn into_result(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// ` (did you mean `x`?)` for a word that is close to a known one.
pub(crate) fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let near = known
        .into_iter()
        .map(|known| (distance(word, known), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min();
    near.map_or_else(String::new, |(_, known)| {
        format!("; did you mean `{known}`?")
    })
}

/// How many letters have to be changed, added or left out.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut diagonal = index;
        let mut left = index + 1;
        for (column, known) in other.iter().enumerate() {
            let above = row.get(column + 1).copied().unwrap_or_default();
            let changed = diagonal + usize::from(letter != *known);
            let next = changed.min(above + 1).min(left + 1);
            if let Some(cell) = row.get_mut(column) {
                *cell = left;
            }
            diagonal = above;
            left = next;
        }
        if let Some(last) = row.last_mut() {
            *last = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// Where something is written.
pub(crate) fn span_of(place: &impl Spanned) -> Span {
    place.span()
}
