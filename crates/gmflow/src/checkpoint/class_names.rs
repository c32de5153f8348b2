//! Which class a text names. A label may hold commas, be a part of another label, or belong to two classes.

use crate::{Error, Result};

/// The form that always stands for an index, for a number that is also a name.
const INDEX: &str = "index=";
/// Candidates and names that a message lists.
const SHOWN: usize = 20;
/// Names that a message lists where there are more than it can list.
const NEAREST: usize = 5;

/// The classes of a model, found by label, index or synonym. Published label lists give several names to a class: "tench, Tinca tinca".
///
/// A text is tried as one class, in this order; the first kind of name that it is decides:
///
/// 1. a whole label, letter by letter;
/// 2. a whole label, whatever the spaces around its words and commas;
/// 3. an index, or a synonym: a part of a label between commas;
/// 4. a whole label or a synonym in other upper and lower case.
///
/// `index=3` is the index 3 even where a label is "3"; where all labels are numbers, it is the only form of an index. A name that fits several classes is an error that lists them.
#[derive(Clone, Copy, Debug)]
pub struct ClassNames<'a> {
    labels: &'a [String],
    count: usize,
}

/// What a text may be the name of.
enum Found {
    Class(usize),
    Several(Vec<usize>),
    Nothing,
}

impl Found {
    /// One class, or several in ascending order.
    fn of(mut classes: Vec<usize>) -> Self {
        classes.sort_unstable();
        classes.dedup();
        match classes[..] {
            [] => Self::Nothing,
            [class] => Self::Class(class),
            _ => Self::Several(classes),
        }
    }
}

impl<'a> ClassNames<'a> {
    /// `count` classes, the first of them with `labels`; there may be no labels.
    pub fn new(labels: &'a [String], count: usize) -> Self {
        Self { labels, count }
    }

    /// The class that `asked` names as a whole.
    ///
    /// # Errors
    /// A text that names no class, or several.
    pub fn find(&self, asked: &str) -> Result<usize> {
        match self.search(asked) {
            Found::Class(class) => Ok(class),
            Found::Several(classes) => Err(self.ambiguous(asked, &classes)),
            Found::Nothing => Err(self.unknown(asked)),
        }
    }

    /// The classes that `asked` names: one as a whole, or else several with commas between them. Of a list, as many parts together as
    /// name a class are taken for its name, from the left: in "tench, Tinca tinca, crane" the first two are one label.
    ///
    /// # Errors
    /// A part that names no class, or several.
    pub fn find_all(&self, asked: &str) -> Result<Vec<usize>> {
        let parts: Vec<&str> = asked.split(',').collect();
        let mut classes = Vec::new();
        let mut start = 0;
        while start < parts.len() {
            let (class, end) = self.longest(&parts, start)?;
            classes.push(class);
            start = end;
        }
        Ok(classes)
    }

    /// The class named by most of the parts from `start` on together, and where they end.
    fn longest(&self, parts: &[&str], start: usize) -> Result<(usize, usize)> {
        for end in (start + 1..=parts.len()).rev() {
            let together = parts[start..end].join(",");
            match self.search(&together) {
                Found::Class(class) => return Ok((class, end)),
                Found::Several(classes) => return Err(self.ambiguous(&together, &classes)),
                Found::Nothing => {}
            }
        }
        Err(self.unknown(parts[start].trim()))
    }

    fn search(&self, asked: &str) -> Found {
        let plain = spaced(asked);
        let lower = plain.to_lowercase();
        let labels = |is: &dyn Fn(&str) -> bool| -> Vec<usize> {
            self.labels.iter().enumerate().filter(|(_, label)| is(label)).map(|(class, _)| class).collect()
        };
        let index_or_synonym = || {
            let index = match plain.strip_prefix(INDEX) {
                Some(index) => self.index(index),
                // A number that is the name of no class is a slip where all names are numbers.
                None if self.are_numbers() => None,
                None => self.index(&plain),
            };
            index.into_iter().chain(labels(&|label| synonyms(label).any(|name| name == plain))).collect()
        };
        let in_any_case = |label: &str| {
            spaced(label).to_lowercase() == lower || synonyms(label).any(|name| name.to_lowercase() == lower)
        };
        let kinds: [&dyn Fn() -> Vec<usize>; 4] = [
            &|| labels(&|label| label == asked),
            &|| labels(&|label| spaced(label) == plain),
            &index_or_synonym,
            &|| labels(&in_any_case),
        ];
        kinds
            .iter()
            .map(|kind| Found::of(kind()))
            .find(|found| !matches!(found, Found::Nothing))
            .unwrap_or(Found::Nothing)
    }

    /// Whether every class has a number for its name.
    fn are_numbers(&self) -> bool {
        let is_number = |label: &String| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit());
        !self.labels.is_empty() && self.labels.iter().all(is_number)
    }

    /// The index that a text of digits stands for.
    fn index(&self, text: &str) -> Option<usize> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|&index| digits && index < self.count)
    }

    fn ambiguous(&self, asked: &str, classes: &[usize]) -> Error {
        let named: Vec<String> = classes.iter().take(SHOWN).map(|&class| self.described(class)).collect();
        let more = match classes.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let expected = format!("one class, by its index or its whole label: {}{more}", named.join("; "));
        Error::config("class", expected, format!("{asked:?}, a name of {} classes", classes.len()))
    }

    /// The text that asks for a class by its index, and its label.
    fn described(&self, class: usize) -> String {
        let number = class.to_string();
        let prefix = if matches!(self.search(&number), Found::Class(found) if found == class) { "" } else { INDEX };
        match self.labels.get(class) {
            Some(label) => format!("{prefix}{number} ({label:?})"),
            None => format!("{prefix}{number}"),
        }
    }

    fn unknown(&self, asked: &str) -> Error {
        let index = match self.count {
            0 => "nothing, because the model has no classes".to_owned(),
            count if self.are_numbers() => format!("an index from {INDEX}0 to {INDEX}{}", count - 1),
            count => format!("an index below {count}"),
        };
        let expected = match self.labels {
            [] => index,
            _ => format!("{index}, or one of {}", self.known(asked)),
        };
        let got = if asked.trim().is_empty() { "nothing".to_owned() } else { asked.to_owned() };
        Error::config("class", expected, got)
    }

    /// The labels to choose from: all where they are few, or those most like what was asked for.
    fn known(&self, asked: &str) -> String {
        if self.labels.len() <= SHOWN {
            return listed(self.labels.iter());
        }
        let asked = asked.to_lowercase();
        let distance = |label: &&String| {
            synonyms(label).map(|name| strsim::damerau_levenshtein(&asked, &name.to_lowercase())).min()
        };
        let mut nearest: Vec<&String> = self.labels.iter().collect();
        nearest.sort_by_cached_key(|label| distance(label).unwrap_or(usize::MAX));
        let count = self.labels.len();
        format!(
            "{count} labels (`gmflow info --json` lists them), such as {}",
            listed(nearest.into_iter().take(NEAREST))
        )
    }
}

/// Labels in quotes: a label may hold what would stand between them.
fn listed<'a>(labels: impl Iterator<Item = &'a String>) -> String {
    labels.map(|label| format!("{label:?}")).collect::<Vec<_>>().join(", ")
}

/// The parts of a label between commas, with single spaces between words.
fn synonyms(label: &str) -> impl Iterator<Item = String> {
    label.split(',').map(words).filter(|name| !name.is_empty())
}

/// A label with single spaces between words and after commas, and none before them.
fn spaced(label: &str) -> String {
    label.split(',').map(words).collect::<Vec<_>>().join(", ")
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
