//! What is seen of types as they are written: a macro knows their names only.

use syn::{GenericArgument, PathArguments, Type};

/// The last name of a path: `Option` of `std::option::Option<T>`.
pub(crate) fn name(ty: &Type) -> Option<String> {
    let Type::Path(path) = ty else { return None };
    path.path.segments.last().map(|last| last.ident.to_string())
}

/// The type arguments behind the last name.
pub(crate) fn arguments(ty: &Type) -> Vec<&Type> {
    let Type::Path(path) = ty else {
        return Vec::new();
    };
    let Some(last) = path.path.segments.last() else {
        return Vec::new();
    };
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return Vec::new();
    };
    let types = arguments.args.iter();
    types
        .filter_map(|argument| match argument {
            GenericArgument::Type(ty) => Some(ty),
            _ => None,
        })
        .collect()
}

/// `T` of `Name<T>`.
pub(crate) fn inner_of<'t>(ty: &'t Type, wanted: &str) -> Option<&'t Type> {
    if name(ty).as_deref() != Some(wanted) {
        return None;
    }
    match arguments(ty).as_slice() {
        [one] => Some(one),
        _ => None,
    }
}

pub(crate) fn is_unit(ty: &Type) -> bool {
    matches!(ty, Type::Tuple(tuple) if tuple.elems.is_empty())
}

/// What a list holds: of `Vec<T>`, `[T]`, `[T; N]`, or a reference to one.
pub(crate) fn item_of(ty: &Type) -> Option<&Type> {
    match ty {
        Type::Reference(reference) => item_of(&reference.elem),
        Type::Slice(slice) => Some(&slice.elem),
        Type::Array(array) => Some(&array.elem),
        other => inner_of(other, "Vec"),
    }
}

/// A parameter's type as a value that is kept, and how the parameter is lent from it.
pub(crate) struct Owned {
    pub(crate) ty: Type,
    /// Whether the method takes a reference to it.
    pub(crate) lent: bool,
    /// The method takes an `Option` of a reference.
    pub(crate) lent_within: bool,
}

impl Owned {
    pub(crate) fn of(ty: &Type) -> Self {
        match ty {
            Type::Reference(reference) => Self {
                ty: kept(&reference.elem),
                lent: true,
                lent_within: false,
            },
            other => match inner_of(other, "Option") {
                Some(Type::Reference(reference)) => {
                    let inner = kept(&reference.elem);
                    Self {
                        ty: syn::parse_quote!(::core::option::Option<#inner>),
                        lent: false,
                        lent_within: true,
                    }
                }
                _ => Self {
                    ty: other.clone(),
                    lent: false,
                    lent_within: false,
                },
            },
        }
    }
}

fn kept(ty: &Type) -> Type {
    match ty {
        Type::Slice(slice) => {
            let item = &slice.elem;
            syn::parse_quote!(::std::vec::Vec<#item>)
        }
        other if name(other).as_deref() == Some("str") => syn::parse_quote!(::std::string::String),
        other => other.clone(),
    }
}

/// What an `Option` or a list holds.
pub(crate) fn kept_item(ty: &Type) -> Type {
    let inner = inner_of(ty, "Option").or_else(|| item_of(ty));
    inner.unwrap_or(ty).clone()
}

/// Whether something is borrowed inside of what is kept.
pub(crate) fn lends_within(ty: &Type) -> bool {
    fn lends(ty: &Type) -> bool {
        match ty {
            Type::Reference(_) => true,
            Type::Slice(slice) => lends(&slice.elem),
            Type::Array(array) => lends(&array.elem),
            Type::Tuple(tuple) => tuple.elems.iter().any(lends),
            other => has_lifetime(other) || arguments(other).into_iter().any(lends),
        }
    }
    lends(&Owned::of(ty).ty)
}

fn has_lifetime(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    path.path
        .segments
        .iter()
        .any(|segment| match &segment.arguments {
            PathArguments::AngleBracketed(arguments) => arguments
                .args
                .iter()
                .any(|argument| matches!(argument, GenericArgument::Lifetime(_))),
            _ => false,
        })
}
