//! Everything that is wrong with a configuration, not only the first.
//!
//! A reader stops at the first fault. What it stopped at is taken away, or something valid put in its place, and it reads again.

use toml::{Table, Value};

use super::Config;
use crate::{Error, Result};

/// More faults than this are not looked for.
const MOST: usize = 100;

/// Valid values of settings that are required, by the last part of their names.
const STAND_INS: &str = r#"
source = { kind = "density", name = "moons" }
loss = { kind = "transition", transition_ratio = 0.5 }
decay = { kind = "constant", decay = 0.5 }
sampler = { solver = { kind = "gm-ode" }, steps = 1 }
solver = { kind = "gm-ode" }
image = { size = 32 }
path = "x"
images = "x"
name = "x"
every = 1
num = 1
steps = 1
size = 32
transition_ratio = 0.5
half_life = 1.0
std = 0.1
scale = 0.0
orthogonal = 0.0
"#;

/// All faults of a configuration of which `first` is known; `read` is what found it.
pub(super) fn all_faults(mut table: Table, first: Error, read: &dyn Fn(Table) -> Result<Config>) -> Vec<Error> {
    let stand_ins: Table = STAND_INS.parse().unwrap_or_default();
    let mut found = vec![first];
    let Some(mut field) = found[0].field().map(str::to_owned) else { return found };
    for _ in 0..MOST {
        if !mended(&mut table, &field, &stand_ins) {
            break;
        }
        match read(table.clone()) {
            Ok(config) => {
                add(&mut found, config.validate());
                break;
            }
            Err(error) => {
                let Some(next) = error.field() else { break };
                field = next.to_owned();
                add(&mut found, Err(error));
            }
        }
    }
    found
}

/// Adds faults of settings that none is known of yet: what stands in for a wrong value is not judged.
fn add(found: &mut Vec<Error>, result: Result<()>) {
    let faults = match result {
        Ok(()) => return,
        Err(Error::Several(faults)) => faults,
        Err(fault) => vec![fault],
    };
    for fault in faults {
        let is_known = |known: &Error| match (known.field(), fault.field()) {
            (Some(known), Some(new)) => {
                known == new || new.strip_prefix(known).is_some_and(|rest| rest.starts_with('.'))
            }
            _ => false,
        };
        if !found.iter().any(is_known) {
            found.push(fault);
        }
    }
}

/// Takes the setting away, or puts in a valid value where it is missing. False where nothing can be done.
fn mended(table: &mut Table, field: &str, stand_ins: &Table) -> bool {
    let keys: Vec<&str> = field.split('.').collect();
    let Some((last, parents)) = keys.split_last() else { return false };
    let mut place: Option<&mut Value> = None;
    for (depth, key) in parents.iter().enumerate() {
        let next = match place {
            None => table.get_mut(*key),
            Some(Value::Table(table)) => table.get_mut(*key),
            Some(Value::Array(list)) => key.parse::<usize>().ok().and_then(|index| list.get_mut(index)),
            Some(_) => None,
        };
        match next {
            Some(next) => place = Some(next),
            // A whole table is missing.
            None => return mended(table, &keys[..=depth].join("."), stand_ins),
        }
    }
    // The kind decides on everything beside it.
    if *last == "kind" && !parents.is_empty() {
        let name = parents.last().copied().unwrap_or_default();
        return match (place, stand_ins.get(name)) {
            (Some(place), Some(value)) if place != value => {
                *place = value.clone();
                true
            }
            _ => false,
        };
    }
    let table = match place {
        None => table,
        Some(Value::Table(table)) => table,
        Some(Value::Array(list)) => {
            let index = last.parse::<usize>().ok().filter(|index| *index < list.len());
            return index.map(|index| list.remove(index)).is_some();
        }
        Some(_) => return false,
    };
    match (table.remove(*last), stand_ins.get(*last)) {
        (Some(_), _) => true,
        (None, Some(value)) => table.insert((*last).to_owned(), value.clone()).is_none(),
        (None, None) => false,
    }
}
