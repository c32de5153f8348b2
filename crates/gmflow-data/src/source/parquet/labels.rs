//! From a column of labels to the numbers of classes.

use std::collections::HashMap;
use std::path::Path;

use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;

use super::columns::{Column, LabelKind};
use super::values;
use crate::source::counts;
use crate::{Error, Result};

/// Most classes of a set whose labels have numbers and no names.
const MAX_CLASSES: i64 = 1 << 20;

/// Most classes of a set whose labels are text: more are captions or paths.
const MAX_NAMES: usize = 1 << 20;

/// The largest whole number below which a float holds every whole number.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The label of a row that has none.
const MISSING: i64 = i64::MIN;

/// The labels of a table, row by row.
#[derive(Debug, Default)]
pub(super) struct Labels {
    /// Numbers of classes, or of texts until [`Labels::names`] has sorted them.
    numbers: Vec<i64>,
    texts: HashMap<String, i64>,
}

impl Labels {
    /// Adds the rows of one batch, of which `first_row` is the first.
    ///
    /// # Errors
    /// [`crate::FilesError::File`] naming the column, and the row where one value is at fault: a number that is not whole or too large for
    /// a label, bytes that are no text.
    pub fn add(&mut self, path: &Path, column: &Column<LabelKind>, array: &ArrayRef, first_row: usize) -> Result<()> {
        let (name, got) = (&column.name, array.data_type().clone());
        let unread = |wrong: String| {
            Error::file(path, format!("column {name}"), "labels that can be read", format!("{got}: {wrong}"))
        };
        match column.kind {
            LabelKind::Bool => {
                let values = values::booleans(array).map_err(unread)?;
                self.numbers.extend(values.into_iter().map(|value| value.map_or(MISSING, i64::from)));
            }
            LabelKind::Number if is_whole(&got) => {
                let values = values::whole(array).map_err(unread)?;
                self.numbers.extend(values.into_iter().map(|value| value.unwrap_or(MISSING)));
            }
            LabelKind::Number => {
                for (row, value) in values::floats(array).map_err(unread)?.into_iter().enumerate() {
                    self.numbers.push(match value {
                        // Tables made with pandas have NaN for a number that is missing.
                        Some(value) if !value.is_nan() => whole(value).ok_or_else(|| {
                            let place = format!("column {name}, row {}", first_row + row);
                            Error::file(path, place, "whole numbers, as floats that are labels have", value)
                        })?,
                        _ => MISSING,
                    });
                }
            }
            LabelKind::Text => {
                for value in values::texts(array).map_err(unread)? {
                    let number = self.text(value.filter(|text| !text.is_empty()));
                    self.numbers.push(number);
                }
                if self.texts.len() > MAX_NAMES {
                    let expected = format!("at most {MAX_NAMES} different classes");
                    return Err(Error::file(path, format!("column {name}"), expected, "more: captions or paths?"));
                }
            }
        }
        Ok(())
    }

    /// The number of a text, in the order in which they come.
    fn text(&mut self, text: Option<&str>) -> i64 {
        let Some(text) = text else { return MISSING };
        if let Some(number) = self.texts.get(text) {
            return *number;
        }
        let number = self.texts.len() as i64;
        self.texts.insert(text.to_owned(), number);
        number
    }

    /// The names of the classes in order, at least one; labels are their numbers afterwards. The names are `declared`, or the texts sorted by their
    /// bytes, or `false` and `true`, or the numbers up to the largest one.
    ///
    /// # Errors
    /// [`crate::FilesError::File`] for numbers without names that are too large to be classes, and for a column without a label.
    pub fn names(
        &mut self,
        path: &Path,
        column: &Column<LabelKind>,
        declared: Option<Vec<String>>,
    ) -> Result<Vec<String>> {
        let wrong =
            |expected: &str, got: String| Err(Error::file(path, format!("column {}", column.name), expected, got));
        let names = match (column.kind, declared) {
            (LabelKind::Text, declared) => self.sorted(declared),
            (_, Some(names)) => names,
            (LabelKind::Bool, None) => vec!["false".into(), "true".into()],
            (LabelKind::Number, None) => match self.numbers.iter().max() {
                Some(&highest) if highest >= MAX_CLASSES => {
                    return wrong(&format!("labels below {MAX_CLASSES}"), format!("{highest} (an id?)"));
                }
                highest => (0..=highest.copied().unwrap_or(MISSING)).map(|class| class.to_string()).collect(),
            },
        };
        if names.is_empty() {
            return wrong("at least one label", "none: all rows are null, empty or negative".into());
        }
        Ok(names)
    }

    /// Gives texts the numbers of their places among `declared` names, or among themselves when sorted.
    fn sorted(&mut self, declared: Option<Vec<String>>) -> Vec<String> {
        let names = declared.unwrap_or_else(|| {
            let mut names: Vec<String> = self.texts.keys().cloned().collect();
            names.sort();
            names
        });
        let places: HashMap<&String, i64> = names.iter().zip(0..).collect();
        // A text that is not among declared names is no class: its row is refused.
        let place = |(text, number): (&String, &i64)| (*number, places.get(text).copied().unwrap_or(-1));
        let places: HashMap<i64, i64> = self.texts.iter().map(place).collect();
        for number in &mut self.numbers {
            *number = places.get(number).copied().unwrap_or(*number);
        }
        names
    }

    /// The number of rows of each of `classes` classes.
    pub fn counts(&self, classes: usize) -> Vec<u64> {
        counts(self.numbers.iter().filter_map(|number| usize::try_from(*number).ok()), classes)
    }

    /// The label of a row, which must be one of `classes`.
    pub fn get(&self, row: usize, classes: usize) -> std::result::Result<u32, String> {
        match self.numbers.get(row) {
            None | Some(&MISSING) => Err("none (null, NaN or an empty text)".into()),
            Some(number) => {
                let label = u32::try_from(*number).ok().filter(|label| (*label as usize) < classes);
                label.ok_or_else(|| number.to_string())
            }
        }
    }
}

fn is_whole(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, values) => is_whole(values),
        kind => kind.is_integer(),
    }
}

fn whole(value: f64) -> Option<i64> {
    (value.trunc() == value && value.abs() < EXACT).then_some(value as i64)
}
