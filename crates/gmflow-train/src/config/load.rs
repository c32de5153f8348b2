//! From a TOML file and overrides to a checked [`Config`].

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::{Config, defaults};
use crate::{Error, Result};

impl Config {
    /// Reads `path`, applies `overrides` of the form `a.b=value` in order and checks the result.
    ///
    /// A value is read as TOML, and as a plain string where it is not TOML, so that `train.schedule=cosine` needs no
    /// quotes. A number in the name is an index into a list: `ema.0.decay=0.99`.
    ///
    /// # Errors
    /// A file that cannot be read or is not TOML, an unknown field (with the nearest known name), a wrong type, a value
    /// outside its domain. Every message names the field.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, source))?;
        let mut config = Self::parse(&text, path, overrides)?;
        config.resolve_paths(path.parent().unwrap_or(Path::new("")));
        config.validate().map_err(|error| error.in_file(path))?;
        Ok(config)
    }

    /// As [`Config::load`] from text; `path` is only named in messages, and the values are not validated.
    ///
    /// # Errors
    /// As [`Config::load`], but for the checks of single values.
    pub fn parse(text: &str, path: &Path, overrides: &[String]) -> Result<Self> {
        let mut table: Table = text.parse().map_err(|error: toml::de::Error| Error::Toml {
            path: path.to_path_buf(),
            message: error.to_string().trim_end().to_string(),
        })?;
        for text in overrides {
            apply_override(&mut table, text)?;
        }
        let given = Value::Table(table.clone());
        let from_data = defaults::fill(&mut table);
        let mut config: Self = serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
            let field = error.path().to_string();
            field_error(path, &field, &error.into_inner().to_string())
        })?;
        config.from_data = from_data;
        config.fit_micro_batch(overrides);
        config.refuse_ignored(path, &given)?;
        Ok(config)
    }

    /// A part of a batch that an override made smaller than the file's parts becomes the whole batch.
    fn fit_micro_batch(&mut self, overrides: &[String]) {
        let is_set = |name: &str| {
            overrides.iter().any(|text| text.split('=').next().is_some_and(|given| given.trim() == name))
        };
        let (batch, micro) = (self.train.batch_size, self.train.micro_batch.unwrap_or(0));
        if micro > batch && is_set("train.batch_size") && !is_set("train.micro_batch") {
            log::warn!(
                "train.micro_batch: {micro} in the file is more than the batch of {batch}, which is computed at once"
            );
            self.train.micro_batch = Some(batch);
        }
    }

    /// Serde lets any field pass beside a `kind` that has none of its own; what does not come back in the resolved form was
    /// ignored, so it is unknown.
    fn refuse_ignored(&self, path: &Path, given: &Value) -> Result<()> {
        let resolved: Table =
            self.to_toml()?.parse().map_err(|error| Error::config("config", "values that TOML can hold", error))?;
        match ignored(given, &Value::Table(resolved)) {
            None => Ok(()),
            Some(field) => Err(Error::Config {
                source_name: path.display().to_string(),
                field,
                expected: "a field of this kind of table".into(),
                got: "an unknown field".into(),
            }),
        }
    }

    /// The resolved configuration as TOML, which [`Config::parse`] reads back.
    ///
    /// # Errors
    /// A number that TOML cannot hold.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|error| Error::config("config", "values that TOML can hold", error))
    }

    /// The names of the settings that differ from `other`'s, such as `train.lr`; of a table that only one has, the table's.
    ///
    /// # Errors
    /// A number that TOML cannot hold.
    pub fn differences(&self, other: &Self) -> Result<Vec<String>> {
        let table = |config: &Self| {
            let text = config.to_toml()?;
            text.parse::<Table>().map_err(|error| Error::config("config", "values that TOML can hold", error))
        };
        let mut names = Vec::new();
        differing("", &table(self)?, &table(other)?, &mut names);
        Ok(names)
    }

    /// A relative path of data or weights that does not exist from the working directory is taken from `folder`.
    fn resolve_paths(&mut self, folder: &Path) {
        let vae = self.sample.as_mut().and_then(|sample| sample.vae.as_mut());
        for path in self.data.source.paths_mut().into_iter().chain(vae).chain(&mut self.train.from) {
            let beside: PathBuf = folder.join(&*path);
            if path.is_relative() && !path.exists() && beside.exists() {
                *path = beside;
            }
        }
    }
}

/// Adds the full names of the keys with other values, or with a value in one of the tables alone.
fn differing(above: &str, a: &Table, b: &Table, names: &mut Vec<String>) {
    let of_b = b.keys().filter(|key| !a.contains_key(*key));
    for key in a.keys().chain(of_b) {
        let name = format!("{above}{key}");
        match (a.get(key), b.get(key)) {
            (Some(Value::Table(a)), Some(Value::Table(b))) => differing(&format!("{name}."), a, b, names),
            (a, b) if a != b => names.push(name),
            _ => {}
        }
    }
}

/// The full name of a key in `given` that `resolved` does not have.
fn ignored(given: &Value, resolved: &Value) -> Option<String> {
    let below = |key: String, given: &Value, resolved: Option<&Value>| match resolved {
        None => Some(key),
        Some(resolved) => ignored(given, resolved).map(|field| format!("{key}.{field}")),
    };
    match (given, resolved) {
        (Value::Table(given), Value::Table(resolved)) => {
            given.iter().find_map(|(key, value)| below(key.clone(), value, resolved.get(key)))
        }
        (Value::Array(given), Value::Array(resolved)) => {
            let mut pairs = given.iter().zip(resolved).enumerate();
            pairs.find_map(|(i, (given, resolved))| below(i.to_string(), given, Some(resolved)))
        }
        _ => None,
    }
}

/// Sets one `a.b=value` in the table; missing tables on the way are made, and unknown names are found by the caller.
fn apply_override(table: &mut Table, text: &str) -> Result<()> {
    let bad = |expected: &str, got: &str| Error::Config {
        source_name: "--set".into(),
        field: text.split('=').next().unwrap_or_default().to_string(),
        expected: expected.into(),
        got: got.into(),
    };
    let (name, raw) = text.split_once('=').ok_or_else(|| bad("name=value", text))?;
    let value = match format!("v = {raw}").parse::<Table>() {
        Ok(mut parsed) => parsed.remove("v").unwrap_or(Value::String(raw.into())),
        Err(_) => Value::String(raw.trim().into()),
    };
    let keys: Vec<&str> = name.trim().split('.').collect();
    let Some((last, parents)) = keys.split_last() else { return Err(bad("name=value", text)) };
    if keys.iter().any(|key| key.is_empty()) {
        return Err(bad("a name such as train.lr", name));
    }
    let mut slot: Option<&mut Value> = None;
    for key in parents {
        slot = Some(match slot {
            None => table.entry(*key).or_insert_with(|| Value::Table(Table::new())),
            Some(parent) => child(parent, key).ok_or_else(|| bad("the name of a setting in a table", key))?,
        });
    }
    match slot {
        None => *table.entry(*last).or_insert(Value::Boolean(false)) = value,
        Some(parent) => {
            *child(parent, last).ok_or_else(|| bad("the name of a setting in a table", last))? = value;
        }
    }
    Ok(())
}

/// The place of `key` in a table (made if absent) or in a list (an index that exists).
fn child<'a>(parent: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    match parent {
        Value::Table(table) => Some(table.entry(key).or_insert_with(|| Value::Table(Table::new()))),
        Value::Array(list) => key.parse::<usize>().ok().and_then(|index| list.get_mut(index)),
        _ => None,
    }
}

/// Turns serde's sentence into field, expected and got, and adds the nearest known name for an unknown one.
fn field_error(path: &Path, field: &str, message: &str) -> Error {
    let message = message.trim().lines().next().unwrap_or_default().to_string();
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let (expected, got) = match (message.split_once(", expected "), quoted.split_first()) {
        (Some((got, expected)), Some((unknown, known))) if message.starts_with("unknown ") => {
            let nearest = known
                .iter()
                .map(|name| (strsim::damerau_levenshtein(unknown, name), name))
                .filter(|(distance, name)| *distance <= 1 + name.len() / 3)
                .min_by_key(|(distance, _)| *distance);
            let hint = nearest.map(|(_, name)| format!(" (did you mean `{name}`?)")).unwrap_or_default();
            (expected.to_string(), format!("{got}{hint}"))
        }
        (Some((got, expected)), _) => (expected.to_string(), got.trim_start_matches("invalid type: ").to_string()),
        (None, _) => ("a valid value".to_string(), message.clone()),
    };
    let field = if field == "." { "config" } else { field };
    Error::Config { source_name: path.display().to_string(), field: field.to_string(), expected, got }
}

/// Reads a value of any deserialisable kind from JSON text, with field names in errors.
pub(crate) fn from_json<'a, T: Deserialize<'a>>(path: &Path, text: &'a str) -> Result<T> {
    let mut reader = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        let field = if field == "." { "content".to_owned() } else { field };
        Error::file(path, field, "what this version writes", error.into_inner())
    })
}
