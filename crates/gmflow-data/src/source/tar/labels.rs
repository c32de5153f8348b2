//! From labels as they are written to the numbers of classes.

use std::collections::HashMap;
use std::path::Path;

use gmflow_files::{json, text};
use serde_json::Value;

use crate::storage::{Entry, Files};
use crate::{Error, Result};

/// Most classes of a set whose labels have numbers and no names, and most different texts.
const MOST_CLASSES: usize = 1 << 20;

/// Most bytes of a file with the names of classes.
const MOST_BYTES: u64 = 1 << 28;

/// The label of a sample that has none, or none of the set's.
pub(super) const NO_LABEL: u32 = u32::MAX;

/// The numbers of labels and the names of classes. Labels that are whole numbers, in all samples that have one, are the classes' numbers.
/// Others are names: of `names`, or else sorted by their bytes. A set in which no sample has a label has no classes.
///
/// # Errors
/// [`crate::FilesError::File`] for numbers without names that are too large to be classes, and for too many different names.
pub(super) fn classes<'a>(
    path: &Path,
    labels: impl Iterator<Item = Option<&'a str>> + Clone,
    names: Option<Vec<String>>,
) -> Result<(Vec<u32>, Vec<String>)> {
    let number = |label: &str| label.parse::<u64>().ok();
    let given = labels.clone().flatten();
    if given.clone().next().is_none() {
        return Ok((labels.map(|_| 0).collect(), Vec::new()));
    }
    if given.clone().all(|label| number(label).is_some()) {
        let highest = given.filter_map(number).max().unwrap_or(0);
        let names = match names {
            Some(names) => names,
            None if highest >= MOST_CLASSES as u64 => {
                let got = format!("{highest} (an id?)");
                return Err(Error::file(path, "labels", format!("numbers below {MOST_CLASSES}"), got));
            }
            None => (0..=highest).map(|class| class.to_string()).collect(),
        };
        let within = |label: &str| number(label).filter(|label| *label < names.len() as u64);
        let numbers = labels.map(|label| label.and_then(within).map_or(NO_LABEL, |label| label as u32)).collect();
        return Ok((numbers, names));
    }
    let names = match names {
        Some(names) => names,
        None => {
            let mut names: Vec<String> = given.map(str::to_owned).collect();
            names.sort();
            names.dedup();
            names
        }
    };
    if names.len() > MOST_CLASSES {
        let expected = format!("at most {MOST_CLASSES} different classes");
        return Err(Error::file(path, "labels", expected, format!("{} (captions?)", names.len())));
    }
    let places: HashMap<&str, u32> = names.iter().map(String::as_str).zip(0..).collect();
    let place = |label: Option<&str>| label.and_then(|label| places.get(label).copied()).unwrap_or(NO_LABEL);
    Ok((labels.map(place).collect(), names))
}

/// The names in a file: one a line, or a JSON list of texts.
///
/// # Errors
/// [`crate::FilesError::Io`]; [`crate::FilesError::File`] for a name that is empty or there twice.
pub(super) fn read_names(files: &Files, entry: &Entry) -> Result<Vec<String>> {
    let wrong = |field: String, expected: &str, got: String| Error::file(&entry.path, field, expected, got);
    if entry.bytes > MOST_BYTES {
        return Err(wrong("file size".into(), "a file with the names of classes", format!("{} bytes", entry.bytes)));
    }
    let bytes = files.read_all(entry)?;
    let is_json = entry.path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
    let names: Vec<String> = match is_json {
        true => match json::value(&bytes).map_err(|error| wrong(error.field, "a JSON list of names", error.got))? {
            Value::Array(list) => (list.iter().enumerate())
                .map(|(at, name)| match name {
                    Value::String(name) => Ok(name.clone()),
                    other => Err(wrong(format!("entry {at}"), "a name", json::describe(other))),
                })
                .collect::<Result<_>>()?,
            other => return Err(wrong("content".into(), "a JSON list of names", json::describe(&other))),
        },
        false => {
            let text = text::decode(&bytes).map_err(|error| wrong(error.field, &error.expected, error.got))?;
            text.lines().map(|line| line.trim_end().to_owned()).collect()
        }
    };
    let mut lines = HashMap::new();
    for (line, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(wrong(format!("line {}", line + 1), "the name of a class", "an empty line".into()));
        }
        if let Some(before) = lines.insert(name, line + 1) {
            return Err(wrong(
                format!("line {}", line + 1),
                "a name that is there once",
                format!("{name}, as in line {before}"),
            ));
        }
    }
    match names.is_empty() || names.len() > MOST_CLASSES {
        true => Err(wrong("content".into(), "names of 1 to 1048576 classes", names.len().to_string())),
        false => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &[Option<&str>], names: Option<&[&str]>) -> (Vec<u32>, Vec<String>) {
        let names = names.map(|names| names.iter().map(ToString::to_string).collect());
        classes(Path::new("x"), labels.iter().copied(), names).unwrap()
    }

    #[test]
    fn numbers_are_classes_and_texts_are_sorted() {
        let (numbers, names) = of(&[Some("2"), None, Some("0")], None);
        assert_eq!((numbers, names.join(" ")), (vec![2, NO_LABEL, 0], "0 1 2".to_owned()));
        let (numbers, names) = of(&[Some("fox"), Some("cat"), Some("10")], None);
        assert_eq!((numbers, names.join(" ")), (vec![2, 1, 0], "10 cat fox".to_owned()));
        assert_eq!(of(&[None, None], None), (vec![0, 0], vec![]));
    }

    #[test]
    fn names_that_are_given_count() {
        assert_eq!(of(&[Some("1"), Some("2")], Some(&["a", "b"])).0, [1, NO_LABEL]);
        assert_eq!(of(&[Some("b"), Some("c")], Some(&["b", "a"])).0, [0, NO_LABEL]);
    }

    #[test]
    fn ids_are_no_classes() {
        let error = classes(Path::new("x"), [Some("99999999")].into_iter(), None).unwrap_err().to_string();
        assert!(error.contains("an id?"), "{error}");
    }
}
