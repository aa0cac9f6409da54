//! What a build without the feature `compression` has instead: settings that ask for it are refused, so nothing gets here.

use super::ContentCoding;
use crate::body::Body;

pub(super) const BUILT: bool = false;

pub(super) fn decoded(body: Body, _: ContentCoding) -> Body {
    body
}

pub(super) fn encoded(body: Body, _: ContentCoding) -> Body {
    body
}
