//! What a data set is known by, kept with what is made of it, so that a later call can tell whether it is still the same.

use std::collections::HashSet;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::pixels::RULES;
use crate::settings::{Background, Format};

/// Most names of classes in one message.
const SHOWN: usize = 10;

/// What a data set is known by: its classes, its size, and a digest of what it is read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The number of images.
    pub images: u64,
    /// The names of the classes in order; empty without classes.
    pub classes: Vec<String>,
    /// The number of images of each class; empty where it is not known.
    #[serde(default)]
    pub class_images: Vec<u64>,
    /// Channels, height and width as the images are handed out.
    pub shape: [usize; 3],
    /// What shows through transparent pixels.
    #[serde(default)]
    pub background: Background,
    /// The number of the rules by which pixels are made of image files; a later version of this program may have others.
    pub rules: u32,
    /// SHA-256, in hexadecimal digits, of what is read: of a folder the names and sizes of its files, of other sets their bytes.
    pub content: String,
}

impl Fingerprint {
    /// The fingerprint of `images` images in this form.
    pub(crate) fn new(
        images: usize,
        classes: &[String],
        class_images: &[u64],
        format: &Format,
        content: Content,
    ) -> Self {
        Self {
            images: images as u64,
            classes: classes.to_vec(),
            class_images: class_images.to_vec(),
            shape: format.shape(),
            background: format.background,
            rules: RULES,
            content: content.finish(),
        }
    }

    /// How `now` differs from this, in words; `None` where nothing does.
    pub fn changes(&self, now: &Self) -> Option<String> {
        let mut lines = Vec::new();
        self.class_changes(now, &mut lines);
        if self.images != now.images {
            lines.push(format!("{} images, {} before", now.images, self.images));
        }
        self.count_changes(now, &mut lines);
        if self.shape != now.shape {
            let form = |[c, h, w]: [usize; 3]| format!("{c} channels of {w}x{h}");
            lines.push(format!("images of {}, {} before", form(now.shape), form(self.shape)));
        }
        if self.background != now.background {
            lines.push(format!("background {}, {} before", name(now.background), name(self.background)));
        }
        if lines.is_empty() && self.content != now.content {
            lines.push("the same number of images, but other files, sizes or contents".into());
        }
        if self.rules != now.rules {
            lines.push("this version of the program makes pixels of image files by other rules".into());
        }
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// Classes that came, went or changed places.
    fn class_changes(&self, now: &Self, lines: &mut Vec<String>) {
        let missing = |of: &[String], within: &[String]| -> Vec<String> {
            let within: HashSet<&String> = within.iter().collect();
            of.iter().filter(|name| !within.contains(name)).cloned().collect()
        };
        let (added, removed) = (missing(&now.classes, &self.classes), missing(&self.classes, &now.classes));
        for (names, what) in [(&added, "added"), (&removed, "removed")] {
            match names.as_slice() {
                [] => {}
                [one] => lines.push(format!("class {one} {what}")),
                several => lines.push(format!("{} classes {what}: {}", several.len(), listed(several))),
            }
        }
        if added.is_empty() && removed.is_empty() && self.classes != now.classes {
            lines.push(format!("classes in the order {}, before {}", listed(&now.classes), listed(&self.classes)));
        }
    }

    /// Classes with another number of images.
    fn count_changes(&self, now: &Self, lines: &mut Vec<String>) {
        let counts = |of: &Self| of.classes.len() == of.class_images.len();
        if self.classes != now.classes || !counts(self) || !counts(now) {
            return;
        }
        let pairs = self.class_images.iter().zip(&now.class_images).zip(&self.classes);
        let changed: Vec<String> = pairs
            .filter(|((before, after), _)| before != after)
            .map(|((before, after), name)| format!("{name} has {after}, {before} before"))
            .collect();
        if !changed.is_empty() {
            lines.push(listed(&changed));
        }
    }
}

fn name(background: Background) -> &'static str {
    match background {
        Background::White => "white",
        Background::Black => "black",
    }
}

/// The first few of some names.
pub(crate) fn listed(names: &[String]) -> String {
    let mut text = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        // Writing to a string does not fail.
        let _ = write!(text, " and {} more", names.len() - SHOWN);
    }
    text
}

/// A digest in the making.
#[derive(Debug, Default)]
pub(crate) struct Content(Sha256);

impl Content {
    /// Adds a name, or other bytes of any length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        // With the length first, no two lists of entries read alike.
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    /// Adds large contents by their length and checksum, which is fast.
    pub fn contents(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.number(u64::from(crc32c::crc32c(bytes)));
    }

    fn finish(self) -> String {
        let mut text = String::new();
        for byte in self.0.finalize() {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(classes: &[&str], class_images: &[u64]) -> Fingerprint {
        let format = Format { height: 4, width: 4, channels: 3, background: Background::White, max_pixels: 1 };
        let classes: Vec<String> = classes.iter().map(ToString::to_string).collect();
        Fingerprint::new(
            class_images.iter().sum::<u64>() as usize,
            &classes,
            class_images,
            &format,
            Content::default(),
        )
    }

    fn text(before: &Fingerprint, now: &Fingerprint) -> String {
        before.changes(now).unwrap_or_default()
    }

    #[test]
    fn what_changed_is_named() {
        let before = fingerprint(&["dog", "fox"], &[8, 8]);
        assert_eq!(before.changes(&before), None);
        let cases = [
            (fingerprint(&["cat", "dog", "fox"], &[1, 8, 8]), "class cat added; 17 images, 16 before"),
            (fingerprint(&["dog"], &[8]), "class fox removed; 8 images, 16 before"),
            (fingerprint(&["dog", "fox", "hen"], &[8, 8, 1]), "class hen added; 17 images, 16 before"),
            (fingerprint(&["fox"], &[16]), "class dog removed"),
            (fingerprint(&["dog", "fox"], &[8, 38]), "46 images, 16 before; fox has 38, 8 before"),
            (fingerprint(&["dog", "fox"], &[9, 7]), "dog has 9, 8 before, fox has 7, 8 before"),
            (fingerprint(&["fox", "dog"], &[8, 8]), "classes in the order fox, dog, before dog, fox"),
        ];
        for (now, expected) in cases {
            assert_eq!(text(&before, &now), expected);
        }
    }

    #[test]
    fn other_contents_and_settings_are_named() {
        let before = fingerprint(&["dog"], &[8]);
        let content = Fingerprint { content: "another".into(), ..before.clone() };
        assert!(text(&before, &content).starts_with("the same number of images, but other files"));
        let shape = Fingerprint { shape: [1, 4, 8], ..before.clone() };
        assert_eq!(text(&before, &shape), "images of 1 channels of 8x4, 3 channels of 4x4 before");
        let background = Fingerprint { background: Background::Black, ..before.clone() };
        assert_eq!(text(&before, &background), "background black, white before");
        let rules = Fingerprint { rules: 1, ..before.clone() };
        assert!(text(&rules, &before).contains("other rules"));
    }
}
