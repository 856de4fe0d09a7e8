//! What may be kept of a name that a server sent.

use std::sync::Arc;

/// No name in a mesh is longer; a longer one is never stored.
pub(super) const MAX_NAME_BYTES: usize = 4096;

/// How much of such a name a refusal repeats.
const SHOWN_BYTES: usize = 64;

/// The name, or its beginning if it is too long to be one.
pub(super) fn shown(name: &str) -> Arc<str> {
    if name.len() <= MAX_NAME_BYTES {
        return name.into();
    }
    let end = (0..=SHOWN_BYTES)
        .rev()
        .find(|end| name.is_char_boundary(*end));
    let start = name.get(..end.unwrap_or(0)).unwrap_or_default();
    format!("{start}…").into()
}
