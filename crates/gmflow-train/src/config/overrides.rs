//! Settings that the command line gives beside those of a file.

use std::path::Path;

/// Where a message says that a value from the command line stands.
pub(super) const OVERRIDE: &str = "--set";

/// Whether an override sets `field`, the table that it stands in, or something in it.
pub(crate) fn is_overridden(field: &str, overrides: &[String]) -> bool {
    let reaches = |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with('.'));
    overrides.iter().any(|text| {
        let name = text.split('=').next().unwrap_or_default().trim();
        reaches(field, name) || reaches(name, field)
    })
}

/// How a message calls the place where `field` got its value.
pub(crate) fn source_of(field: &str, path: &Path, overrides: &[String]) -> String {
    if is_overridden(field, overrides) { OVERRIDE.to_owned() } else { path.display().to_string() }
}
