//! What does not have the form that it has to have, field by field.

use std::fmt;

/// A value does not have the form that it has to have: a typed cause of
/// [`ServiceError::Validation`](crate::ServiceError::Validation).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// Every place that is wrong; never empty.
    pub fields: Vec<FieldMismatch>,
}

/// One place that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldMismatch {
    /// The JSON path of the place: `items[1].quantity`; `.` is the whole value.
    pub path: String,
    /// What is wrong.
    pub detail: String,
}

impl Mismatch {
    pub(crate) fn new(fields: impl IntoIterator<Item = (String, String)>) -> Self {
        let fields = fields.into_iter();
        Self {
            fields: fields
                .map(|(path, detail)| FieldMismatch { path, detail })
                .collect(),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, FieldMismatch { path, detail }) in self.fields.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "; " })?;
            write!(f, "{path}: {detail}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mismatch {}
