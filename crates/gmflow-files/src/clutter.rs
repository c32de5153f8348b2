//! Files that nobody put there.

use std::ffi::OsStr;

/// Names that operating systems and archive programs leave in folders, in lower case.
const LEFT_BEHIND: [&str; 8] = [
    "__macosx",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "$recycle.bin",
    "system volume information",
    "@eadir",
    "lost+found",
];

/// Whether a file or folder of this name is no part of the user's data: hidden ones, such as `.DS_Store` and macOS's `._*`, and what
/// systems leave behind, such as `__MACOSX` and `Thumbs.db`.
///
/// ```
/// use gmflow_files::is_clutter;
///
/// assert!(["._cat.png", ".DS_Store", "__MACOSX", "Thumbs.db"].iter().all(|name| is_clutter(name.as_ref())));
/// assert!(!is_clutter("cat.png".as_ref()));
/// ```
pub fn is_clutter(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".") || LEFT_BEHIND.iter().any(|left| name.eq_ignore_ascii_case(left))
}
