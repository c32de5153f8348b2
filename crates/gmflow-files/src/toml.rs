//! Settings in TOML, with errors that name the setting.
//!
//! ```
//! use gmflow_files::toml;
//!
//! #[derive(Debug, serde::Deserialize)]
//! struct Train {
//!     lr: f64,
//! }
//!
//! let read = |text: &str| toml::settings::<Train>(toml::table(text)?);
//! assert_eq!(read("lr = 1e-3")?.lr, 1e-3);
//! assert_eq!(read("lr = \"fast\"").unwrap_err().field, "lr");
//! # Ok::<(), gmflow_files::Wrong>(())
//! ```

use crate::Wrong;
use crate::locate::{Failure, Tree, explain, steps};
use crate::words::{is_named_number, is_named_text, quoted};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Characters of a line that a message repeats.
const SHOWN: usize = 60;

/// The table that a text holds.
///
/// # Errors
/// [`Wrong`] with the line and column, and a hint where the fault is a usual one.
pub fn table(text: &str) -> Result<Table, Wrong> {
    text.parse().map_err(|error: toml::de::Error| syntax(text, &error))
}

/// The settings that a table holds.
///
/// # Errors
/// [`Wrong`] with the full name of the setting, also below a table whose `kind` decides what it holds.
pub fn settings<T: DeserializeOwned>(table: Table) -> Result<T, Wrong> {
    fn read<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
        serde_path_to_error::deserialize(value)
            .map_err(|error| (steps(error.path()), error.inner().message().to_owned()))
    }
    let value = Value::Table(table);
    read::<T>(value.clone()).map_err(|failure| explain(&value, failure, &|value| read::<T>(value).map(drop)))
}

/// What a value is, in plain words.
pub fn describe(value: &Value) -> String {
    value.describe()
}

/// What is wrong with a text that is no TOML.
fn syntax(text: &str, error: &toml::de::Error) -> Wrong {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..at).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let line_number = before.matches('\n').count() + 1;
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    let line = text.get(line_start..).unwrap_or_default().lines().next().unwrap_or_default().trim();
    let message = error.message().lines().next().unwrap_or_default().trim_end_matches('.');
    let shown: String = line.chars().take(SHOWN).collect();
    let hint = hint(line, message).map(|hint| format!("; {hint}")).unwrap_or_default();
    let place = format!("line {line_number}, column {column}");
    if message.starts_with("duplicate key") {
        let name = error.span().and_then(|span| text.get(span)).unwrap_or(line);
        return Wrong::new(place, "every name once", format!("{} a second time", name.trim()));
    }
    Wrong::new(place, "TOML", format!("{}: {message}{hint}", quoted(&shown)))
}

/// What to do about a fault that is often made.
fn hint(line: &str, message: &str) -> Option<&'static str> {
    let value = line.split_once('=').map_or("", |(_, value)| value.trim());
    if line.contains(['\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}', '\u{ab}', '\u{bb}']) {
        Some("typographic quotes are no quotes: write \" or '")
    } else if line.contains(['\u{a0}', '\u{2009}', '\u{202f}', '\u{3000}', '\u{200b}', '\u{feff}']) {
        Some("it has a blank that is no ordinary space: type the space again")
    } else if value.starts_with('"') && value.contains('\\') {
        Some("in double quotes a backslash begins an escape: write the text in single quotes, or / in paths")
    } else if is_large_number(value) {
        Some("TOML holds whole numbers up to 9223372036854775807: write a larger one in quotes")
    } else if line.contains('\r') {
        Some("lines end with a carriage return alone: save the file with ordinary line ends")
    } else if message.contains("expected `=`") && line.contains(':') {
        Some("TOML is written name = value, not name: value")
    } else {
        None
    }
}

/// Whether the text is a whole number that TOML cannot hold.
fn is_large_number(text: &str) -> bool {
    let number = text.split('#').next().unwrap_or_default().trim().replace('_', "");
    number.parse::<i64>().is_err() && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

impl Tree for Value {
    const TABLE: &str = "a table";

    fn list(&self) -> Option<&Vec<Self>> {
        self.as_array()
    }

    fn list_mut(&mut self) -> Option<&mut Vec<Self>> {
        self.as_array_mut()
    }

    fn names(&self) -> Vec<String> {
        self.as_table().into_iter().flat_map(|entries| entries.keys().cloned()).collect()
    }

    fn entry(&self, name: &str) -> Option<&Self> {
        self.as_table()?.get(name)
    }

    fn entry_mut(&mut self, name: &str) -> Option<&mut Self> {
        self.as_table_mut()?.get_mut(name)
    }

    fn remove_entry(&mut self, name: &str) {
        self.as_table_mut().map(|entries| entries.remove(name));
    }

    fn insert(&mut self, name: &str) -> bool {
        self.as_table_mut().is_some_and(|entries| entries.insert(name.to_owned(), Self::Boolean(true)).is_none())
    }

    fn text(&self) -> Option<&str> {
        self.as_str()
    }

    fn set_text(&mut self, text: &str) {
        *self = Self::String(text.to_owned());
    }

    fn is_called(&self, name: &str) -> bool {
        match self {
            Self::String(text) => is_named_text(name, text),
            Self::Integer(number) => name == format!("integer `{number}`"),
            Self::Float(number) => is_named_number(name, *number),
            Self::Boolean(value) => name == format!("boolean `{value}`"),
            Self::Array(_) => name == "sequence",
            Self::Table(_) | Self::Datetime(_) => name == "map",
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::String(text) if text.is_empty() => "an empty text".into(),
            Self::String(text) if is_large_number(text) => format!("{text}, which is more than 2^63 - 1"),
            Self::String(text) => format!("the text {}", quoted(text)),
            Self::Datetime(date) => format!("the date {date}"),
            Self::Array(list) => format!("a list of {}", list.len()),
            Self::Table(_) => "a table".into(),
            Self::Float(number) if number.is_nan() => "nan".into(),
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct File {
        net: Net,
        #[serde(default)]
        more: Vec<Net>,
        steps: Option<u64>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
    #[allow(dead_code)]
    enum Net {
        Deep { layers: usize, inner: Inner },
        Wide { width: f64 },
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        size: [usize; 2],
        #[serde(default)]
        on: bool,
    }

    fn wrong(text: &str) -> String {
        table(text).and_then(settings::<File>).unwrap_err().to_string()
    }

    #[test]
    fn the_setting_is_named_below_a_kind_too() {
        let good = "[net]\nkind = 'deep'\nlayers = 3\n[net.inner]\nsize = [1, 2]\n";
        assert!(table(good).and_then(settings::<File>).is_ok());
        for (text, message) in [
            ("steps = '3'\n", "steps: expected a whole number of at least 0, got the text \"3\""),
            ("steps = -3\n", "steps: expected a whole number of at least 0, got -3"),
            ("step = 3\n", "step: expected net, more or steps, got an unknown name (did you mean steps?)"),
            ("more = [{ kind = 'wide', width = 'x' }]\n", "more.0.width: expected a number, got the text \"x\""),
        ] {
            assert_eq!(wrong(&format!("{text}{good}")), message);
        }
        for (old, new, message) in [
            ("3", "'3'", "net.layers: expected a whole number of at least 0, got the text \"3\""),
            ("3", "2020-01-01", "net.layers: expected a whole number of at least 0, got the date 2020-01-01"),
            ("[1, 2]", "[1]", "net.inner.size: expected a list of 2 values, got a list of 1"),
            ("[1, 2]", "[1, 2, 3]", "net.inner.size: expected a list of 2 values, got a list of 3"),
            ("[1, 2]", "[1, 'b']", "net.inner.size.1: expected a whole number of at least 0, got the text \"b\""),
            ("size = [1, 2]", "", "net.inner.size: expected a value, got none: the setting is missing"),
            ("size", "on = 1\nsize", "net.inner.on: expected true or false, got 1"),
            (
                "size",
                "sizes = 1\nsize",
                "net.inner.sizes: expected size or on, got an unknown name (did you mean size?)",
            ),
            ("layers = 3", "", "net.layers: expected a value, got none: the setting is missing"),
            ("kind = 'deep'", "", "net.kind: expected a value, got none: the setting is missing"),
            ("'deep'", "'depe'", "net.kind: expected deep or wide, got \"depe\" (did you mean deep?)"),
            ("'deep'", "7", "net.kind: expected a name, got 7"),
        ] {
            assert_eq!(wrong(&good.replacen(old, new, 1)), message, "{new}");
        }
        assert_eq!(wrong("net = 'deep'"), "net: expected a table, got the text \"deep\"");
        assert_eq!(wrong(""), "net: expected a value, got none: the setting is missing");
    }

    #[test]
    fn faults_of_writing_are_named_with_their_place() {
        for (text, parts) in [
            ("a = 1\na = 2", &["line 2", "a", "a second time"][..]),
            ("a = \u{201c}x\u{201d}", &["line 1", "typographic quotes"]),
            ("x = 2\nb\u{a0}= 1", &["line 2", "blank"]),
            ("p = \"C:\\Users\\x\"", &["line 1", "single quotes"]),
            ("n = 18446744073709551615", &["line 1", "in quotes"]),
            ("data:\n  x: 1", &["line 1", "name = value"]),
            ("a = ", &["line 1"]),
        ] {
            let message = table(text).unwrap_err().to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{text}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }
}
