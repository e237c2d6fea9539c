//! The parsers of this module as functions over bytes.

use super::continuation;

/// Continue tokens: read, and made again from what was read.
///
/// # Panics
/// If what was read would be read otherwise the next time.
pub(crate) fn continue_tokens(data: &[u8]) {
    const PREFIX: &[u8] = b"/registry/pods/";
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(read) = continuation::decode(PREFIX, text) else { return };
    assert!(read.start.starts_with(PREFIX), "a token leads out of its collection: {read:?}");
    if let Some(last) = read.start.strip_suffix(b"\0") {
        let again = continuation::encode(PREFIX, last, read.revision);
        assert_eq!(continuation::decode(PREFIX, &again).ok(), Some(read));
    }
}
