//! Which members of a shard are images, which are labels, and which belong together.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::sample::Sample;
use crate::source::listing::IMAGES;
use crate::{Error, Result};

/// Endings of members with labels, in the order in which they are looked for.
const LABELS: [&str; 2] = ["cls", "json"];

/// The field of a JSON member with the label.
const FIELD: &str = "label";

/// Which members were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Choice {
    /// The ending of images; by default every usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The ending of labels, or an empty text for none; by default `cls`, or else `json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The field of a JSON member with the label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl Choice {
    /// A text that differs where the choice does.
    pub fn known_by(&self) -> String {
        format!("{:?}", (&self.image, &self.label, &self.field))
    }
}

/// A member's name: WebDataset's key, which ends at the first dot behind the last `/`, and the ending behind that dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    key: String,
    ending: String,
}

impl Name {
    /// The parts of a name; `None` of files that nobody put there, and of names without a key or an ending.
    pub fn of(name: &str) -> Option<Self> {
        let name = name.trim_start_matches("./");
        let start = name.rfind('/').map_or(0, |at| at + 1);
        let file = name.get(start..)?;
        if gmflow_files::is_clutter(file.as_ref()) || name.starts_with("__MACOSX/") {
            return None;
        }
        let (_, ending) = file.split_once('.')?;
        let key = name.get(..name.len() - ending.len() - 1)?;
        Some(Self { key: key.to_owned(), ending: ending.to_ascii_lowercase() })
    }

    pub fn whole(&self) -> String {
        format!("{}.{}", self.key, self.ending)
    }

    /// The last part of an ending of several, such as `png` of `left.png`.
    fn last(&self) -> &str {
        self.ending.rsplit('.').next().unwrap_or_default()
    }
}

/// What a shard holds.
pub(super) struct Listed {
    pub samples: Vec<Sample>,
    /// The ending of the members with labels.
    pub label_member: Option<String>,
    /// Members that are not used, with their number, by their endings.
    pub others: Vec<(String, u64)>,
}

/// A sample whose members are still coming.
struct Open {
    key: String,
    image: Option<(String, u64, u64)>,
    label: Option<String>,
}

/// The members of a shard, one after the other.
pub(super) struct Members<'a> {
    choice: &'a Choice,
    open: Option<Open>,
    samples: Vec<Sample>,
    /// The ending of the labels, as the first sample with one tells.
    label_member: Option<String>,
    others: BTreeMap<String, u64>,
}

impl<'a> Members<'a> {
    pub fn new(choice: &'a Choice) -> Self {
        Self { choice, open: None, samples: Vec::new(), label_member: None, others: BTreeMap::new() }
    }

    /// Whether a member may hold a label.
    pub fn is_label(&self, name: &Name) -> bool {
        match (&self.choice.label, &self.label_member) {
            (Some(asked), _) => name.ending == asked.to_ascii_lowercase(),
            // A label that both forms could give is taken from the first of them.
            (None, Some(taken)) => name.ending == *taken || (taken != LABELS[0] && name.ending == LABELS[0]),
            (None, None) => LABELS.contains(&name.ending.as_str()),
        }
    }

    fn is_image(&self, name: &Name) -> bool {
        match &self.choice.image {
            Some(asked) => name.ending == asked.to_ascii_lowercase(),
            None => IMAGES.contains(&name.last()),
        }
    }

    /// Adds a member with its place and its size, and its content where it may be a label. Those of one sample follow each other.
    ///
    /// # Errors
    /// [`crate::FilesError::File`] for a second image of a sample, or a label that cannot be read.
    pub fn add(&mut self, shard: &Path, name: Name, place: (u64, u64), label: Option<Vec<u8>>) -> Result<()> {
        if self.open.as_ref().is_none_or(|open| open.key != name.key) {
            self.close();
            self.open = Some(Open { key: name.key.clone(), image: None, label: None });
        }
        let is_image = self.is_image(&name);
        let text = match label {
            Some(content) => self.text(shard, &name, &content)?,
            None => None,
        };
        let Some(open) = &mut self.open else { return Ok(()) };
        if is_image {
            if let Some((other, ..)) = &open.image {
                let expected = "one image of each sample (image_member chooses among several)";
                let got = format!("{other} and {}", name.ending);
                return Err(Error::file(shard, format!("sample {}", name.key), expected, got));
            }
            open.image = Some((name.ending, place.0, place.1));
        } else if let Some(text) = text {
            self.label_member = Some(name.ending);
            open.label = Some(text);
        } else {
            *self.others.entry(name.ending).or_default() += 1;
        }
        Ok(())
    }

    /// The text of a label; `None` of an empty one, and where a JSON member lacks the field.
    fn text(&self, shard: &Path, name: &Name, content: &[u8]) -> Result<Option<String>> {
        let wrong =
            |expected: &str, got: String| Error::file(shard, format!("member {}", name.whole()), expected, got);
        if name.last() != "json" {
            let text = gmflow_files::text::decode(content).map_err(|error| wrong("a label in UTF-8", error.got))?;
            return Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()));
        }
        let value = match gmflow_files::json::value(content) {
            Ok(value) => value,
            // Nobody asked for it.
            Err(_) if self.choice.label.is_none() => return Ok(None),
            Err(error) => return Err(wrong("JSON with the label", error.got)),
        };
        let field = self.choice.field.as_deref().unwrap_or(FIELD);
        // A name with dots leads into objects within.
        match field.split('.').try_fold(&value, |value, part| value.get(part)) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(Value::Bool(value)) => Ok(Some(value.to_string())),
            Some(other) => {
                let expected = format!("a number or a text in the field {field}");
                Err(wrong(&expected, gmflow_files::json::describe(other)))
            }
        }
    }

    /// Ends the sample whose members came last.
    fn close(&mut self) {
        if let Some(Open { key, image: Some((ending, offset, bytes)), label }) = self.open.take() {
            self.samples.push(Sample { key, ending, offset, bytes, label });
        }
    }

    /// Leaves out the last sample, of which members may be missing.
    pub fn damaged(&mut self) {
        self.open = None;
    }

    /// What the shard holds.
    pub fn finish(mut self) -> Listed {
        self.close();
        let Self { samples, label_member, others, .. } = self;
        Listed { samples, label_member, others: others.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_at_the_first_dot_of_the_file() {
        let parts = |name: &str| Name::of(name).map(|name| (name.key, name.ending));
        let is = |key: &str, ending: &str| Some((key.to_owned(), ending.to_owned()));
        assert_eq!(parts("000001.jpg"), is("000001", "jpg"));
        assert_eq!(parts("./a/b.left.PNG"), is("a/b", "left.png"));
        assert_eq!(parts("v1.2/b.cls"), is("v1.2/b", "cls"));
        assert_eq!(parts("a/._b.jpg"), None);
        assert_eq!(parts("__MACOSX/b.jpg"), None);
        assert_eq!(parts("README"), None);
    }

    #[test]
    fn labels_in_cls_go_before_those_in_json() {
        let choice = Choice::default();
        let mut members = Members::new(&choice);
        let shard = Path::new("x.tar");
        for (name, content) in
            [("1.jpg", ""), ("1.json", r#"{"label": "fox"}"#), ("1.cls", "4\n"), ("2.json", "{"), ("2.cls", " 5 ")]
        {
            let name = Name::of(name).unwrap();
            let label = members.is_label(&name).then(|| content.as_bytes().to_vec());
            members.add(shard, name, (512, 1), label).unwrap();
        }
        members.add(shard, Name::of("2.png").unwrap(), (2048, 3), None).unwrap();
        let listed = members.finish();
        assert_eq!(listed.label_member.as_deref(), Some("cls"));
        let labels: Vec<_> = listed.samples.iter().map(|sample| sample.label.as_deref().unwrap()).collect();
        assert_eq!(labels, ["4", "5"]);
        assert_eq!(listed.samples[1].offset, 2048);
    }
}
