//! Paths that are URLs, such as `s3://bucket/photos`.

use std::path::{Path, PathBuf};

/// Whether a path is a URL: a scheme of at least two letters, then `://`.
///
/// ```
/// use gmflow_files::is_url;
///
/// assert!(is_url("s3://bucket/photos".as_ref()));
/// assert!(!is_url("photos/a:/b".as_ref()) && !is_url("C:/photos".as_ref()));
/// ```
pub fn is_url(path: &Path) -> bool {
    scheme(path).is_some()
}

/// The scheme of a URL, such as `s3`; `None` of other paths.
pub fn scheme(path: &Path) -> Option<&str> {
    let (scheme, _) = path.to_str()?.split_once("://")?;
    let sound = scheme.len() > 1 && scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    (sound && scheme.chars().all(known)).then_some(scheme)
}

/// The absolute form of a path from the working directory. A URL stays as it is, and so does a path of which it cannot be told.
pub fn absolute(path: &Path) -> PathBuf {
    if is_url(path) {
        return path.to_path_buf();
    }
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// A path below a folder; a URL stays as it is.
pub fn below(folder: &Path, path: &Path) -> PathBuf {
    if is_url(path) { path.to_path_buf() } else { folder.join(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_scheme() {
        for (path, expected) in [
            ("s3://bucket/a", Some("s3")),
            ("https://host/a.tar", Some("https")),
            ("file:///a", Some("file")),
            ("a/b", None),
            ("://a", None),
            ("x://a", None),
            ("a b://c", None),
            ("C:\\a", None),
        ] {
            assert_eq!(scheme(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn a_url_has_no_working_directory() {
        assert_eq!(absolute(Path::new("gs://b//c")), Path::new("gs://b//c"));
        assert_eq!(below(Path::new("/a"), Path::new("gs://b/c")).to_str(), Some("gs://b/c"));
        assert!(absolute(Path::new("b")).is_absolute());
        assert_eq!(below(Path::new("/a"), Path::new("b")), Path::new("/a/b"));
    }
}
