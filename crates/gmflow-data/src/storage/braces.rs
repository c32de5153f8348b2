//! Names with ranges and lists in braces: `train-{0000..0127}.tar`, `{train,extra}.tar`.

use crate::{Error, Result};

/// The most names that one text stands for.
const MOST: usize = 1 << 20;

/// The names that a text stands for, in order: the last pair of braces counts fastest. A text without braces stands for itself.
///
/// # Errors
/// [`crate::FilesError::Config`] for braces that do not close, a range that runs backwards, or more than a million names.
pub(super) fn expand(text: &str) -> Result<Vec<String>> {
    let wrong = |expected: &str, got: &str| Error::config("path", expected, format!("{got:?} in {text:?}"));
    let mut names = vec![String::new()];
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once('{') {
        let (inside, after) = inside.split_once('}').ok_or_else(|| wrong("a closing brace", rest))?;
        let parts =
            parts(inside).ok_or_else(|| wrong("a range such as 0000..0127, or a list such as a,b", inside))?;
        if parts.len().saturating_mul(names.len()) > MOST {
            return Err(wrong("at most 1048576 names", inside));
        }
        names = names.iter().flat_map(|name| parts.iter().map(move |part| format!("{name}{before}{part}"))).collect();
        rest = after;
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    Ok(names)
}

/// What stands for a pair of braces.
fn parts(inside: &str) -> Option<Vec<String>> {
    if inside.contains('{') {
        return None;
    }
    let Some((from, to)) = inside.split_once("..") else {
        return inside.contains(',').then(|| inside.split(',').map(str::to_owned).collect());
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let (first, last) = (number(from)?, number(to)?);
    if first > last || last - first >= MOST as u64 {
        return None;
    }
    // As in a shell, zeros in front keep the width.
    let padded = |text: &str| text.len() > 1 && text.starts_with('0');
    let width = if padded(from) || padded(to) { from.len().max(to.len()) } else { 0 };
    Some((first..=last).map(|number| format!("{number:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_lists_are_written_out() {
        let names = |text: &str| expand(text).unwrap().join(" ");
        assert_eq!(names("a.tar"), "a.tar");
        assert_eq!(names("s-{008..011}.tar"), "s-008.tar s-009.tar s-010.tar s-011.tar");
        assert_eq!(names("s-{8..10}"), "s-8 s-9 s-10");
        assert_eq!(names("{a,b}/{1..2}.tar"), "a/1.tar a/2.tar b/1.tar b/2.tar");
        assert_eq!(names("{0..0}"), "0");
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["a{", "a{1..", "a{3..1}", "a{x..y}", "a{1}", "{0..99999999}", "{{1..2}}", "{0..1023}{0..2047}"] {
            assert!(matches!(expand(text), Err(Error::Files(gmflow_files::Error::Config { .. }))), "{text}");
        }
    }
}
