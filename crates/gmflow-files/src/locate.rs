//! Where in a tree of settings a value is wrong.
//!
//! Below a table with a `kind`, serde tells that something is wrong and not where: it has read the whole table before it knows the kind. The
//! place is found by trying: what is wrong with a value is no longer wrong without it.

use crate::Wrong;
use crate::words::{SHORTER, Said, choices, nearest, quoted, said};

/// Tables in tables deeper than this are not looked into.
const DEEPEST: usize = 32;
/// More entries of one table or list are not tried.
const MOST_TRIED: usize = 256;
/// Names that a message lists.
const LISTED: usize = 24;

/// A tree of settings.
pub(crate) trait Tree: Clone {
    /// What a table is called.
    const TABLE: &str;
    /// The list, where it is one.
    fn list(&self) -> Option<&Vec<Self>>;
    /// The same, to be changed.
    fn list_mut(&mut self) -> Option<&mut Vec<Self>>;
    /// The names of the entries of a table; none elsewhere.
    fn names(&self) -> Vec<String>;
    /// The entry of a table.
    fn entry(&self, name: &str) -> Option<&Self>;
    /// The same, to be changed.
    fn entry_mut(&mut self, name: &str) -> Option<&mut Self>;
    /// Takes an entry out of a table.
    fn remove_entry(&mut self, name: &str);
    /// Adds an entry to a table and returns true; does nothing elsewhere.
    fn insert(&mut self, name: &str) -> bool;
    /// The text, where it is one.
    fn text(&self) -> Option<&str>;
    /// Replaces the value by a text.
    fn set_text(&mut self, text: &str);
    /// Whether serde calls the value so: "integer `3`", "string \"x\"", "map".
    fn is_called(&self, name: &str) -> bool;
    /// What the value is, in plain words.
    fn describe(&self) -> String;

    /// The names of the entries of a table, or the indices of a list.
    fn keys(&self) -> Vec<String> {
        match self.list() {
            Some(list) => (0..list.len()).map(|index| index.to_string()).collect(),
            None => self.names(),
        }
    }

    /// The entry of that name or index.
    fn at(&self, key: &str) -> Option<&Self> {
        match self.list() {
            Some(list) => list.get(key.parse::<usize>().ok()?),
            None => self.entry(key),
        }
    }

    /// The same, to be changed.
    fn at_mut(&mut self, key: &str) -> Option<&mut Self> {
        match self.list() {
            Some(_) => self.list_mut()?.get_mut(key.parse::<usize>().ok()?),
            None => self.entry_mut(key),
        }
    }

    /// Takes an entry out.
    fn remove(&mut self, key: &str) {
        let Some(list) = self.list_mut() else { return self.remove_entry(key) };
        if let Some(index) = key.parse::<usize>().ok().filter(|index| *index < list.len()) {
            list.remove(index);
        }
    }
}

/// Where a reader failed and what it said.
pub(crate) type Failure = (Vec<String>, String);

/// What is wrong, where, in plain words; `read` is the reader that has failed with `failure`.
pub(crate) fn explain<T: Tree>(tree: &T, failure: Failure, read: &dyn Fn(T) -> Result<(), Failure>) -> Wrong {
    let (path, message) = failure.clone();
    let search = Search { tree, failure: &failure, read };
    let told = said(&message);
    let path = match &told {
        Said::Missing(name) => search.place_of_missing(path, name, 0),
        _ => search.culprit(path, &told, 0),
    };
    let value = follow(tree, &path);
    let field = |last: &str| {
        let mut path = path.clone();
        if path.last().is_none_or(|end| end != last) {
            path.push(last.to_owned());
        }
        path.join(".")
    };
    let got = || value.map_or_else(|| "nothing".to_owned(), Tree::describe);
    let place = if path.is_empty() { "content".to_owned() } else { path.join(".") };
    match told {
        Said::Missing(name) => Wrong::new(field(&name), "a value", "none: the setting is missing"),
        Said::Twice(name) => Wrong::new(field(&name), "it once", "it twice"),
        Said::UnknownField(name, known) => {
            let expected = if known.is_empty() { "no settings here".into() } else { listed(&known) };
            Wrong::new(field(&name), expected, format!("an unknown name{}", hint(&name, &known)))
        }
        Said::UnknownChoice(name, known) => {
            Wrong::new(place, listed(&known), format!("{}{}", quoted(&name), hint(&name, &known)))
        }
        // Of a list that is too long, serde does not tell how long it may be.
        Said::Other(expected) if expected == SHORTER => {
            let expected =
                search.fitting_length(&path).map_or(expected, |length| format!("a list of {length} values"));
            Wrong::new(place, expected, got())
        }
        Said::Other(expected) => Wrong::new(place, expected.replace("a table", T::TABLE), got()),
        Said::Else(text) => Wrong::new(place, "a valid value", format!("{}: {text}", got())),
    }
}

/// Some names, all where they are few.
fn listed(names: &[String]) -> String {
    if names.len() <= LISTED {
        return choices(names);
    }
    format!("one of {} names, such as {}", names.len(), names[..LISTED].join(", "))
}

fn hint(name: &str, known: &[String]) -> String {
    nearest(name, known).map(|name| format!(" (did you mean {name}?)")).unwrap_or_default()
}

struct Search<'a, T> {
    tree: &'a T,
    failure: &'a Failure,
    read: &'a dyn Fn(T) -> Result<(), Failure>,
}

impl<T: Tree> Search<'_, T> {
    /// The path of the innermost value without which there is another error or none.
    fn culprit(&self, mut path: Vec<String>, told: &Said, depth: usize) -> Vec<String> {
        let Some(here) = follow(self.tree, &path) else { return path };
        let keys = here.keys();
        if let Said::UnknownField(name, _) = told
            && keys.contains(name)
        {
            return path;
        }
        if depth > DEEPEST {
            return path;
        }
        let changes = |key: &&String| {
            let mut without = self.tree.clone();
            let Some(parent) = follow_mut(&mut without, &path) else { return false };
            parent.remove(key);
            (self.read)(without).err().as_ref() != Some(self.failure)
        };
        // Of a list that is too long or too short, no entry is at fault.
        if here.list().is_some() && self.failure.1.starts_with("invalid length") {
            return path;
        }
        let changing: Vec<&String> =
            keys.iter().take(MOST_TRIED).filter(|key| changes(key) && !self.is_known_choice(&path, key)).collect();
        // Without a setting that must be there the error is another one, too: what is wrong has the value that the error names.
        let holds = |key: &&&String| here.at(key).is_some_and(|value| holds(value, &self.failure.1, 0));
        let found = changing.iter().find(holds).or(changing.first()).map(|key| (*key).clone());
        match found {
            None => path,
            Some(key) => {
                path.push(key);
                self.culprit(path, told, depth + 1)
            }
        }
    }

    /// Whether the entry is a choice, such as a `kind`, and one that there is: the error changes without it, and it is not at fault.
    fn is_known_choice(&self, path: &[String], key: &str) -> bool {
        const NO_CHOICE: &str = "no such choice";
        let Some(chosen) = follow(self.tree, path).and_then(|table| table.at(key)?.text()) else { return false };
        let mut other = self.tree.clone();
        let Some(entry) = follow_mut(&mut other, path).and_then(|table| table.at_mut(key)) else { return false };
        entry.set_text(NO_CHOICE);
        match (self.read)(other).map_err(|(_, message)| said(&message)) {
            Err(Said::UnknownChoice(_, known)) => known.iter().any(|known| known == chosen),
            _ => false,
        }
    }

    /// The number of entries at the beginning of a list that is too long with which the error is another one or none.
    fn fitting_length(&self, path: &[String]) -> Option<usize> {
        let length = follow(self.tree, path)?.list()?.len();
        (0..length).rev().take(MOST_TRIED).find(|length| {
            let mut shorter = self.tree.clone();
            let Some(list) = follow_mut(&mut shorter, path).and_then(Tree::list_mut) else { return false };
            list.truncate(*length);
            match (self.read)(shorter) {
                Ok(()) => true,
                Err((_, message)) => !matches!(said(&message), Said::Other(expected) if expected == SHORTER),
            }
        })
    }

    /// The path of the table that lacks `name`: the one where an entry of that name changes the error.
    fn place_of_missing(&self, path: Vec<String>, name: &str, depth: usize) -> Vec<String> {
        if self.lacks(&path, name) {
            return path;
        }
        let Some(here) = follow(self.tree, &path).filter(|_| depth <= DEEPEST) else { return path };
        for key in here.keys().into_iter().take(MOST_TRIED) {
            let below: Vec<String> = path.iter().cloned().chain([key]).collect();
            let found = self.place_of_missing(below, name, depth + 1);
            if self.lacks(&found, name) {
                return found;
            }
        }
        path
    }

    /// Whether an entry of that name, which the table at `path` does not have, changes the error.
    fn lacks(&self, path: &[String], name: &str) -> bool {
        let mut with = self.tree.clone();
        let inserted =
            follow_mut(&mut with, path).is_some_and(|table| table.at(name).is_none() && table.insert(name));
        if !inserted {
            return false;
        }
        match (self.read)(with) {
            Ok(()) => true,
            // A table that does not know the name does not lack it.
            Err(failure) => {
                failure != *self.failure
                    && !matches!(said(&failure.1), Said::UnknownField(unknown, _) if unknown == name)
            }
        }
    }
}

/// Whether a value, or one in it, is what the message names as found.
fn holds<T: Tree>(value: &T, message: &str, depth: usize) -> bool {
    let found = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    let here = match said(message) {
        Said::UnknownChoice(name, _) => value.text() == Some(&name) || value.at(&name).is_some(),
        Said::UnknownField(name, _) | Said::Twice(name) => value.at(&name).is_some(),
        _ => found.is_none_or(|found| value.is_called(found.split(", expected ").next().unwrap_or(found))),
    };
    here || (depth < DEEPEST
        && value.keys().iter().filter_map(|key| value.at(key)).any(|value| holds(value, message, depth + 1)))
}

fn follow<'a, T: Tree>(tree: &'a T, path: &[String]) -> Option<&'a T> {
    path.iter().try_fold(tree, |tree, key| tree.at(key))
}

fn follow_mut<'a, T: Tree>(tree: &'a mut T, path: &[String]) -> Option<&'a mut T> {
    path.iter().try_fold(tree, |tree, key| tree.at_mut(key))
}

/// The steps of a path that serde has kept.
pub(crate) fn steps(path: &serde_path_to_error::Path) -> Vec<String> {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}
