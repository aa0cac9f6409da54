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
