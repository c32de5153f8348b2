//! JSON from files that others have written: every name once, and errors that name the field.
//!
//! ```
//! use gmflow_files::json;
//!
//! #[derive(Debug, serde::Deserialize)]
//! struct Settings {
//!     steps: usize,
//! }
//!
//! assert_eq!(json::read::<Settings>(br#"{"steps": 4}"#)?.steps, 4);
//! let wrong = json::read::<Settings>(br#"{"steps": "four"}"#).unwrap_err();
//! assert_eq!(wrong.field, "steps");
//! # Ok::<(), gmflow_files::Wrong>(())
//! ```

use crate::locate::{Failure, Tree, explain, steps};
use crate::words::{Said, is_named_number, is_named_text, quoted, said};
use crate::{Wrong, text, what_is};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// The value that the bytes of a file hold; a byte order mark at the beginning is left out.
///
/// # Errors
/// [`Wrong`] where it is no JSON, with the place and a hint; a name that stands twice in an object.
pub fn value(bytes: &[u8]) -> Result<Value, Wrong> {
    let text = json_text(bytes)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Unique.deserialize(&mut reader).map_err(|error| syntax(text, &error))?;
    reader.end().map_err(|error| syntax(text, &error))?;
    Ok(value)
}

/// The object that the bytes of a file hold.
///
/// # Errors
/// As [`value`]; another value than an object.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, Wrong> {
    match value(bytes)? {
        Value::Object(fields) => Ok(fields),
        other => Err(Wrong::new("content", "a JSON object", other.describe())),
    }
}

/// Reads the bytes of a file as what the caller needs.
///
/// # Errors
/// As [`value`]; [`Wrong`] with the full name of the field.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Wrong> {
    from_value(value(bytes)?)
}

/// Takes a value as what the caller needs.
///
/// # Errors
/// [`Wrong`] with the full name of the field.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Wrong> {
    fn read<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
        serde_path_to_error::deserialize(value).map_err(|error| (steps(error.path()), error.inner().to_string()))
    }
    read::<T>(value.clone()).map_err(|failure| explain(&value, failure, &|value| read::<T>(value).map(drop)))
}

/// What a value is, in plain words.
pub fn describe(value: &Value) -> String {
    value.describe()
}

/// The text, unless the file is something else altogether.
fn json_text(bytes: &[u8]) -> Result<&str, Wrong> {
    match what_is(bytes) {
        Some(what)
            if ["an empty file", "an HTML page", "an XML text", "a Git LFS"].iter().any(|w| what.starts_with(w)) =>
        {
            Err(Wrong::new("content", "JSON", what))
        }
        _ => text::decode(bytes),
    }
}

/// What is wrong with a text that is no JSON.
fn syntax(text: &str, error: &serde_json::Error) -> Wrong {
    let (line, column) = (error.line(), error.column());
    let field = format!("line {line}, column {column}");
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    if let Said::Twice(name) = said(message) {
        return Wrong::new(name, "a name that stands once in its object", format!("it twice, in line {line}"));
    }
    let here = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let got = match message {
        "trailing comma" => "a comma behind the last entry".to_owned(),
        "trailing characters" => "more text behind the end".to_owned(),
        "key must be a string" => "a name without double quotes".to_owned(),
        "recursion limit exceeded" => "objects nested too deeply".to_owned(),
        _ if error.is_eof() => "the end of the file: it is cut short".to_owned(),
        "expected value" | "invalid number" => not_a_value(here, column),
        other => format!("{other}, in {}", quoted(here.trim())),
    };
    Wrong::new(field, "JSON", got)
}

/// What stands where a value was expected.
fn not_a_value(line: &str, column: usize) -> String {
    // The column is behind the first character that does not fit.
    let word_character = |c: char| c.is_alphanumeric() || matches!(c, '-' | '+' | '_' | '.');
    let start = line.char_indices().take_while(|(at, _)| *at + 1 < column).map(|(at, _)| at);
    let begin = start.filter(|at| !line[*at..].starts_with(word_character)).last();
    let rest = line.get(begin.map_or(0, |at| at + line[at..].chars().next().map_or(1, char::len_utf8))..);
    let word: String = rest.unwrap_or_default().trim_start().chars().take_while(|c| word_character(*c)).collect();
    match word.trim_start_matches(['-', '+']) {
        "NaN" | "nan" | "Infinity" | "inf" | "Inf" => format!("{word}, which JSON does not have"),
        "True" | "False" | "None" => format!("{word}, which is Python: JSON has true, false and null"),
        "" => format!("no value, in {}", quoted(line.trim())),
        _ => quoted(&word),
    }
}

/// Any value, in which no object has a name twice.
struct Unique;

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = entries.next_element_seed(Self)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
            }
            fields.insert(name, entries.next_value_seed(Self)?);
        }
        Ok(Value::Object(fields))
    }
}

impl Tree for Value {
    const TABLE: &str = "an object";

    fn list(&self) -> Option<&Vec<Self>> {
        self.as_array()
    }

    fn list_mut(&mut self) -> Option<&mut Vec<Self>> {
        self.as_array_mut()
    }

    fn names(&self) -> Vec<String> {
        self.as_object().into_iter().flat_map(|entries| entries.keys().cloned()).collect()
    }

    fn entry(&self, name: &str) -> Option<&Self> {
        self.as_object()?.get(name)
    }

    fn entry_mut(&mut self, name: &str) -> Option<&mut Self> {
        self.as_object_mut()?.get_mut(name)
    }

    fn remove_entry(&mut self, name: &str) {
        self.as_object_mut().map(|entries| entries.remove(name));
    }

    fn insert(&mut self, name: &str) -> bool {
        self.as_object_mut().is_some_and(|entries| entries.insert(name.to_owned(), Self::Bool(true)).is_none())
    }

    fn text(&self) -> Option<&str> {
        self.as_str()
    }

    fn set_text(&mut self, text: &str) {
        *self = Self::String(text.to_owned());
    }

    fn is_called(&self, name: &str) -> bool {
        match self {
            Self::Null => matches!(name, "null" | "unit value" | "Option value"),
            Self::String(text) => is_named_text(name, text),
            Self::Number(number) if number.is_f64() => {
                number.as_f64().is_some_and(|number| is_named_number(name, number))
            }
            Self::Number(number) => name == format!("integer `{number}`"),
            Self::Bool(value) => name == format!("boolean `{value}`"),
            Self::Array(_) => name == "sequence",
            Self::Object(_) => name == "map",
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::String(text) if text.is_empty() => "an empty text".into(),
            Self::String(text) => format!("the text {}", quoted(text)),
            Self::Array(list) => format!("a list of {}", list.len()),
            Self::Object(_) => "an object".into(),
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
    struct Config {
        layers: usize,
        #[serde(default)]
        eps: f64,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct File {
        format: String,
        #[serde(flatten)]
        info: Info,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Info {
        net: Net,
        data: Config,
        shift: f64,
    }

    #[derive(Debug, Deserialize)]
    #[serde(tag = "type", rename_all = "kebab-case")]
    #[allow(dead_code)]
    enum Net {
        Deep { layers: usize },
    }

    #[test]
    fn a_field_is_found_where_tables_are_joined() {
        let good = r#"{"format": "f", "net": {"type": "deep", "layers": 1}, "data": {"layers": 2}, "shift": 1.0}"#;
        assert!(read::<File>(good.as_bytes()).is_ok());
        for (old, new, message) in [
            ("1}", "\"1\"}", "net.layers: expected a whole number of at least 0, got the text \"1\""),
            ("\"deep\"", "\"depe\"", "net.type: expected deep, got \"depe\" (did you mean deep?)"),
            ("\"type\": \"deep\", ", "", "net.type: expected a value, got none: the setting is missing"),
            ("1.0", "null", "shift: expected a number, got null"),
            ("1.0", "[]", "shift: expected a number, got a list of 0"),
            ("2}", "2.5}", "data.layers: expected a whole number of at least 0, got 2.5"),
            ("\"f\"", "3", "format: expected text, got 3"),
            ("{\"layers\": 2}", "7", "data: expected an object, got 7"),
            (
                "{\"layers\": 2}",
                "{\"layer\": 2}",
                "data.layer: expected layers or eps, got an unknown name (did you mean layers?)",
            ),
        ] {
            let got = read::<File>(good.replacen(old, new, 1).as_bytes()).map(|_| ()).unwrap_err().to_string();
            assert_eq!(got, message, "{new}");
        }
    }

    #[test]
    fn faults_are_named_in_plain_words() {
        for (bytes, message) in [
            (&b"{\"layers\": 1.0}"[..], "layers: expected a whole number of at least 0, got 1.0"),
            (b"{\"layers\": null}", "layers: expected a whole number of at least 0, got null"),
            (b"{\"layers\": \"1\"}", "layers: expected a whole number of at least 0, got the text \"1\""),
            (b"{\"layer\": 1}", "layer: expected layers or eps, got an unknown name (did you mean layers?)"),
            (b"{}", "layers: expected a value, got none: the setting is missing"),
            (b"[]", "content: expected an object, got a list of 0"),
            (
                b"{\"layers\": 1, \"layers\": 2}",
                "layers: expected a name that stands once in its object, got it twice, in line 1",
            ),
            (b"{\"layers\": 1,}", "line 1, column 14: expected JSON, got a comma behind the last entry"),
            (
                b"{\"layers\": 1,\n \"eps\": NaN}",
                "line 2, column 9: expected JSON, got NaN, which JSON does not have",
            ),
            (
                b"{\"layers\": 1, \"eps\": -Infinity}",
                "line 1, column 23: expected JSON, got -Infinity, which JSON does not have",
            ),
            (
                b"{\"layers\": None}",
                "line 1, column 12: expected JSON, got None, which is Python: JSON has true, false and null",
            ),
            (b"{\"layers\": 1", "line 1, column 12: expected JSON, got the end of the file: it is cut short"),
            (b"{layers: 1}", "line 1, column 2: expected JSON, got a name without double quotes"),
            (b"{\"layers\": 1} x", "line 1, column 15: expected JSON, got more text behind the end"),
            (b"", "content: expected JSON, got an empty file"),
        ] {
            let got = read::<Config>(bytes).map(|_| ()).unwrap_err().to_string();
            assert_eq!(got, message, "{}", String::from_utf8_lossy(bytes));
        }
        assert!(read::<Config>(b"\xef\xbb\xbf{\"layers\": 1}").is_ok(), "a byte order mark");
        assert!(read::<Config>(b"<!DOCTYPE html>").unwrap_err().to_string().contains("an HTML page"));
    }
}
