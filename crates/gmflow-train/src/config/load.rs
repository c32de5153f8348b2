//! From a TOML file and overrides to a checked [`Config`].

use std::path::Path;

use gmflow_files::{Wrong, json, nearest, text, toml as settings};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::collect::all_faults;
use super::overrides::OVERRIDE;
use super::{CheckpointConfig, Config, DataConfig, FromData, LogConfig, SampleConfig, TrainConfig, defaults};
use crate::{Error, Result};

impl Config {
    /// Reads `path`, applies `overrides` of the form `a.b=value` in order and checks the result.
    ///
    /// A value is read as TOML, and as a plain string where it is not TOML, so that `train.precision=bf16` needs no
    /// quotes. A number in the name is an index into a list: `ema.0.decay=0.99`.
    ///
    /// # Errors
    /// A file that cannot be read or is not TOML; all unknown fields (with the nearest known name), missing fields, wrong types and values
    /// outside their domains. Every message names the field.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self> {
        let mut config = Self::parse_file(path, overrides)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        config.resolve_paths(folder, overrides);
        config.validated(path, overrides)
    }

    /// The configuration that a run keeps in its folder, with `overrides`. Its paths have been resolved when the run began; older
    /// versions wrote them relative to the working directory, and so they are taken.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_resolved(path: &Path, overrides: &[String]) -> Result<Self> {
        Self::parse_file(path, overrides)?.validated(path, overrides)
    }

    fn parse_file(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = text::read(path).map_err(|source| Error::io(path, source))?;
        let text = text.map_err(|wrong| Error::wrong(path.display(), wrong))?;
        Self::parse(&text, path, overrides)
    }

    fn validated(self, path: &Path, overrides: &[String]) -> Result<Self> {
        self.validate().map_err(|error| error.in_file(path, overrides))?;
        Ok(self)
    }

    /// As [`Config::load`] from text; `path` is only named in messages, and the values are not validated.
    ///
    /// # Errors
    /// As [`Config::load`], but for the checks of single values.
    pub fn parse(text: &str, path: &Path, overrides: &[String]) -> Result<Self> {
        let mut table = settings::table(text).map_err(|wrong| Error::wrong(path.display(), wrong))?;
        for text in overrides {
            apply_override(&mut table, text)?;
        }
        let mut config = match Self::read(table.clone(), path) {
            Ok(config) => config,
            Err(first) => {
                let faults = all_faults(table, first, &|table| Self::read(table, path));
                let faults = faults.into_iter().map(|fault| fault.in_file(path, overrides)).collect();
                return Err(Error::several(faults));
            }
        };
        config.fit_micro_batch(overrides);
        Ok(config)
    }

    /// The settings of a table, with the defaults of training.
    fn read(mut table: Table, path: &Path) -> Result<Self> {
        let given = Value::Table(table.clone());
        let from_data = defaults::fill(&mut table);
        let mut config: Self = settings::settings(table).map_err(|wrong| Error::wrong(path.display(), wrong))?;
        config.from_data = FromData { network: given.get("network").is_none(), ..from_data };
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
        let resolved = Value::Table(self.to_table()?);
        // Serde takes a list for a table by the places of its entries, which nobody means.
        if let Some((field, list)) = list_for_table(given, &resolved) {
            return Err(Error::wrong(path.display(), Wrong::new(field, "a table", settings::describe(list))));
        }
        match ignored(given, &resolved) {
            None => Ok(()),
            Some((field, known)) => {
                let last = field.rsplit('.').next().unwrap_or_default();
                let hint = nearest(last, &known).map(|name| format!(" (did you mean {name}?)")).unwrap_or_default();
                let expected = "a setting that this kind of table has";
                Err(Error::wrong(path.display(), Wrong::new(&field, expected, format!("an unknown name{hint}"))))
            }
        }
    }

    /// The resolved configuration as TOML, which [`Config::parse`] reads back.
    ///
    /// # Errors
    /// A number that TOML cannot hold.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(not_toml)
    }

    fn to_table(&self) -> Result<Table> {
        self.to_toml()?.parse().map_err(not_toml)
    }

    /// The names of the settings that differ from `other`'s, such as `train.lr`; of a table that only one has, the table's.
    ///
    /// # Errors
    /// A number that TOML cannot hold.
    pub fn differences(&self, other: &Self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        differing("", &self.to_table()?, &other.to_table()?, &mut names);
        Ok(names)
    }
}

fn not_toml(error: impl ToString) -> Error {
    Error::config("config", "values that TOML can hold", error)
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

/// The full name of a list in `given` that `resolved` has as a table.
fn list_for_table<'a>(given: &'a Value, resolved: &Value) -> Option<(String, &'a Value)> {
    let below = |key: String, given: &'a Value, resolved: &Value| match (given, resolved) {
        (Value::Array(_), Value::Table(_)) => Some((key, given)),
        _ => list_for_table(given, resolved).map(|(field, list)| (format!("{key}.{field}"), list)),
    };
    match (given, resolved) {
        (Value::Table(given), Value::Table(resolved)) => {
            given.iter().find_map(|(key, value)| below(key.clone(), value, resolved.get(key)?))
        }
        (Value::Array(given), Value::Array(resolved)) => {
            let mut pairs = given.iter().zip(resolved).enumerate();
            pairs.find_map(|(index, (given, resolved))| below(index.to_string(), given, resolved))
        }
        _ => None,
    }
}

/// The full name of a key in `given` that `resolved` does not have, and the names that it has there.
fn ignored(given: &Value, resolved: &Value) -> Option<(String, Vec<String>)> {
    let below = |key: String, given: &Value, resolved: Option<&Value>, known: &dyn Fn() -> Vec<String>| match resolved
    {
        None => Some((key, known())),
        Some(resolved) => ignored(given, resolved).map(|(field, known)| (format!("{key}.{field}"), known)),
    };
    match (given, resolved) {
        (Value::Table(given), Value::Table(resolved)) => {
            let known = || resolved.keys().cloned().collect();
            given.iter().find_map(|(key, value)| below(key.clone(), value, resolved.get(key), &known))
        }
        (Value::Array(given), Value::Array(resolved)) => {
            let mut pairs = given.iter().zip(resolved).enumerate();
            pairs.find_map(|(i, (given, resolved))| below(i.to_string(), given, Some(resolved), &Vec::new))
        }
        _ => None,
    }
}

/// Sets one `a.b=value` in the table; missing tables on the way are made, and unknown names are found by the caller.
fn apply_override(table: &mut Table, text: &str) -> Result<()> {
    let bad = |expected: &str, got: String| {
        let field = text.split('=').next().unwrap_or_default().trim();
        let field = if field.is_empty() { "name" } else { field };
        Error::wrong(OVERRIDE, Wrong::new(field, expected, got))
    };
    let example = "name=value, such as train.lr=1e-4";
    let (name, raw) = text.split_once('=').ok_or_else(|| bad(example, "no = in it".into()))?;
    let value = override_value(raw);
    let keys: Vec<&str> = name.trim().split('.').map(str::trim).collect();
    let Some((last, parents)) = keys.split_last().filter(|_| keys.iter().all(|key| !key.is_empty())) else {
        let got = if name.trim().is_empty() { "no name before =" } else { "a name with an empty part" };
        return Err(bad("a name such as train.lr", got.into()));
    };
    if let (true, Some(table)) = (parents.is_empty(), table_of(last)) {
        let got = format!("an unknown name (did you mean {table}.{last}?)");
        return Err(bad("a table and a setting of it", got));
    }
    let mut slot: Option<&mut Value> = None;
    for key in parents {
        slot = Some(match slot {
            None => table.entry(*key).or_insert_with(|| Value::Table(Table::new())),
            Some(parent) => child(parent, key).map_err(|(expected, got)| bad(&expected, got))?,
        });
    }
    match slot {
        None => *table.entry(*last).or_insert(Value::Boolean(false)) = value,
        Some(parent) => *child(parent, last).map_err(|(expected, got)| bad(&expected, got))? = value,
    }
    Ok(())
}

/// The table that has a setting of this name, which is no table itself.
fn table_of(name: &str) -> Option<&'static str> {
    if has::<Config>(name) {
        return None;
    }
    let tables = [
        ("train", has::<TrainConfig>(name)),
        ("sample", has::<SampleConfig>(name)),
        ("checkpoint", has::<CheckpointConfig>(name)),
        ("log", has::<LogConfig>(name)),
        ("data", has::<DataConfig>(name)),
    ];
    tables.into_iter().find(|(_, has)| *has).map(|(table, _)| table)
}

/// Whether a table has a setting of this name.
fn has<T: DeserializeOwned>(name: &str) -> bool {
    let table = Table::from_iter([(name.to_owned(), Value::Boolean(false))]);
    let is_unknown = |wrong: Wrong| wrong.field == name && wrong.got.starts_with("an unknown name");
    !settings::settings::<T>(table).is_err_and(is_unknown)
}

/// The value of an override: TOML, or else the text itself.
fn override_value(raw: &str) -> Value {
    match format!("v = {raw}").parse::<Table>() {
        // More lines would be more settings, which have no place here.
        Ok(mut parsed) if parsed.len() == 1 => parsed.remove("v").unwrap_or(Value::String(raw.into())),
        _ => short_number(raw.trim()).unwrap_or_else(|| Value::String(raw.trim().into())),
    }
}

/// A number without a digit before or behind its point, which TOML does not have.
fn short_number(text: &str) -> Option<Value> {
    let point = text.starts_with('.') || text.ends_with('.') || text.contains(".e");
    let plain = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | '-' | '+'));
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.filter(|_| point && plain).map(Value::Float)
}

/// The place of `key` in a table (made if absent) or in a list (an index that exists); or what was expected and what was found.
fn child<'a>(parent: &'a mut Value, key: &str) -> Result<&'a mut Value, (String, String)> {
    match parent {
        Value::Table(table) => Ok(table.entry(key).or_insert_with(|| Value::Table(Table::new()))),
        Value::Array(list) => {
            let expected = match list.len() {
                0 => "a list with entries to change".to_owned(),
                1 => format!("0 in the place of {key}, the only entry"),
                length => format!("a number from 0 to {} in the place of {key}", length - 1),
            };
            let got = if list.is_empty() { "an empty list".to_owned() } else { key.to_owned() };
            key.parse::<usize>().ok().and_then(|index| list.get_mut(index)).ok_or((expected, got))
        }
        other => {
            let got = format!("{}, which has nothing called {key}", settings::describe(other));
            Err(("a table or a list above it".to_owned(), got))
        }
    }
}

/// Reads a value of any deserialisable kind from JSON text, with field names in errors.
pub(crate) fn from_json<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    json::read(text.as_bytes()).map_err(|Wrong { field, expected, got }| Error::file(path, field, expected, got))
}
