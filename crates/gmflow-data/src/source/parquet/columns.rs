//! Which columns of a table hold the images and the labels, and why these.

use std::path::Path;

use arrow_schema::{DataType, Field, Schema};
use serde_json::Value;

use super::Columns;
use crate::{Error, Result};

/// Names of columns of labels, the likeliest first, in lower case.
const LABELS: [&str; 24] = [
    "label",
    "labels",
    "class",
    "classes",
    "fine_label",
    "fine_labels",
    "target",
    "targets",
    "category",
    "categories",
    "cls",
    "class_label",
    "label_id",
    "class_id",
    "label_idx",
    "class_idx",
    "class_index",
    "category_id",
    "label_name",
    "class_name",
    "category_name",
    "coarse_label",
    "coarse_labels",
    "y",
];

/// Names of columns of images, the likeliest first, in lower case.
const IMAGES: [&str; 16] = [
    "image",
    "images",
    "img",
    "imgs",
    "picture",
    "photo",
    "image_bytes",
    "img_bytes",
    "image_data",
    "png",
    "jpg",
    "jpeg",
    "webp",
    "pixels",
    "bytes",
    "content",
];

/// The index that pandas stores is no column of the table.
const PANDAS_INDEX: &str = "__index_level_";

/// A column and the reason why it was taken.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column<K> {
    pub index: usize,
    pub name: String,
    pub kind: K,
    pub why: String,
}

/// What a column of images holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ImageKind {
    /// The bytes of image files.
    Bytes,
    /// Structs with them in `bytes`.
    Struct,
}

/// What a column of labels holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LabelKind {
    /// The numbers of classes.
    Number,
    /// False and true.
    Bool,
    /// The names of classes.
    Text,
}

/// The columns of a table that are read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chosen {
    pub image: Column<ImageKind>,
    pub label: Option<Column<LabelKind>>,
    /// The names of the classes, where the metadata holds them.
    pub names: Option<Vec<String>>,
    /// The columns that are not read.
    pub others: Vec<String>,
}

impl Chosen {
    /// Chooses the columns of the file at `path`.
    ///
    /// # Errors
    /// [`crate::FilesError::File`] naming the columns and their types where none fits, or where several fit alike.
    pub fn new(path: &Path, schema: &Schema, asked: Columns) -> Result<Self> {
        let table = Table { path, schema, features: features(schema) };
        let image = table.image(asked.image)?;
        let label = table.label(asked.label, &image)?;
        let names = label.as_ref().and_then(|label| table.declared(&label.name));
        let read = |name: &str| name == image.name || label.as_ref().is_some_and(|label| label.name == name);
        let others = schema.fields().iter().map(|field| field.name().clone()).filter(|name| !read(name)).collect();
        Ok(Self { image, label, names, others })
    }

    /// Whether another file of the set has the same columns.
    pub fn agrees(&self, other: &Self) -> bool {
        let label = |chosen: &Self| chosen.label.as_ref().map(|label| (label.name.clone(), label.kind));
        (&self.image.name, self.image.kind, label(self)) == (&other.image.name, other.image.kind, label(other))
    }

    /// The columns in words.
    pub fn describe(&self) -> String {
        let label = match &self.label {
            Some(label) => format!("labels from column {} ({}; {})", label.name, label.kind.name(), label.why),
            None => "no labels".into(),
        };
        format!("images from column {} ({}), {label}", self.image.name, self.image.why)
    }
}

impl LabelKind {
    fn of(kind: &DataType) -> Option<Self> {
        match kind {
            DataType::Boolean => Some(Self::Bool),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Self::Text),
            // Text that its writer did not mark as text.
            kind if is_binary(kind) => Some(Self::Text),
            DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..) => Some(Self::Number),
            kind if kind.is_integer() || kind.is_floating() => Some(Self::Number),
            DataType::Dictionary(_, values) => Self::of(values),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Number => "numbers",
            Self::Bool => "false and true",
            Self::Text => "text",
        }
    }
}

impl ImageKind {
    fn of(kind: &DataType) -> Option<Self> {
        match kind {
            kind if is_binary(kind) => Some(Self::Bytes),
            DataType::Dictionary(_, values) if is_binary(values) => Some(Self::Bytes),
            DataType::Struct(fields) => {
                let bytes = fields.iter().find(|field| field.name() == "bytes")?;
                (Self::of(bytes.data_type()) == Some(Self::Bytes)).then_some(Self::Struct)
            }
            _ => None,
        }
    }
}

fn is_binary(kind: &DataType) -> bool {
    matches!(kind, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}

/// A table with what is said of it.
struct Table<'a> {
    path: &'a Path,
    schema: &'a Schema,
    /// The hub's description of the columns.
    features: Option<Value>,
}

impl Table<'_> {
    fn image(&self, asked: Option<&str>) -> Result<Column<ImageKind>> {
        const EXPECTED: &str = "encoded images (binary, or a struct with binary `bytes`)";
        let kind = |field: &Field| ImageKind::of(field.data_type());
        if let Some(name) = asked {
            let (index, field) = self.named(name)?;
            let kind = kind(field).ok_or_else(|| {
                Error::file(self.path, format!("column {name}"), EXPECTED, why_no_image(field.data_type()))
            })?;
            return Ok(column(index, field, kind, "image_column"));
        }
        let fitting: Vec<(usize, &Field, ImageKind)> =
            self.fields().filter_map(|(index, field)| Some((index, field, kind(field)?))).collect();
        let is_image = |field: &Field| self.feature(field.name(), "_type").is_some_and(|kind| kind == "Image");
        let declared: Vec<_> = fitting.iter().copied().filter(|(_, field, _)| is_image(field)).collect();
        if let Some((index, field, kind)) = first_by_name(&declared, &IMAGES).or(declared.first().copied()) {
            return Ok(column(index, field, kind, "an image in the Hugging Face metadata"));
        }
        if let Some((index, field, kind)) = first_by_name(&fitting, &IMAGES) {
            return Ok(column(index, field, kind, "by its name"));
        }
        let unnamed: Vec<_> = fitting.iter().filter(|(_, field, _)| rank(field.name(), &LABELS).is_none()).collect();
        match unnamed.as_slice() {
            [(index, field, kind)] => Ok(column(*index, field, *kind, "the only one with bytes")),
            several => {
                let what = if several.is_empty() { "no column fits" } else { "several columns fit" };
                let expected = format!("one column of {EXPECTED}; image_column names it");
                Err(Error::file(self.path, "columns", expected, format!("{what}: {}", self.columns(why_no_image))))
            }
        }
    }

    fn label(&self, asked: Option<&str>, image: &Column<ImageKind>) -> Result<Option<Column<LabelKind>>> {
        const EXPECTED: &str = "labels (whole numbers, text or booleans)";
        let kind = |field: &Field| LabelKind::of(field.data_type());
        match asked {
            Some("") => return Ok(None),
            Some(name) if name == image.name => {
                return Err(Error::file(self.path, format!("column {name}"), EXPECTED, "the images"));
            }
            Some(name) => {
                let (index, field) = self.named(name)?;
                let got = || type_name(field.data_type());
                let kind =
                    kind(field).ok_or_else(|| Error::file(self.path, format!("column {name}"), EXPECTED, got()))?;
                return Ok(Some(column(index, field, kind, "label_column")));
            }
            None => {}
        }
        let rest: Vec<(usize, &Field)> = self.fields().filter(|(index, _)| *index != image.index).collect();
        let fitting: Vec<(usize, &Field, LabelKind)> =
            rest.iter().filter_map(|(index, field)| Some((*index, *field, kind(field)?))).collect();
        let declared: Vec<_> =
            fitting.iter().copied().filter(|(_, field, _)| self.declared(field.name()).is_some()).collect();
        if let Some((index, field, kind)) = first_by_name(&declared, &LABELS).or(declared.first().copied()) {
            return Ok(Some(column(index, field, kind, "a class label in the Hugging Face metadata")));
        }
        if let Some((index, field, kind)) = first_by_name(&fitting, &LABELS) {
            return Ok(Some(column(index, field, kind, "by its name")));
        }
        if rest.is_empty() {
            return Ok(None);
        }
        let expected = format!(
            "a column of {EXPECTED} called label, class, target or alike; label_column = \"NAME\" names another, label_column = \"\" does \
             without classes"
        );
        Err(Error::file(self.path, "columns", expected, self.columns(type_name)))
    }

    /// The columns but for the index of pandas.
    fn fields(&self) -> impl Iterator<Item = (usize, &Field)> {
        let fields = self.schema.fields().iter().enumerate().map(|(index, field)| (index, field.as_ref()));
        fields.filter(|(_, field)| !field.name().starts_with(PANDAS_INDEX))
    }

    fn named(&self, name: &str) -> Result<(usize, &Field)> {
        match self.schema.fields().find(name) {
            Some((index, field)) => Ok((index, field)),
            None => Err(Error::file(self.path, "columns", format!("one named {name}"), self.columns(type_name))),
        }
    }

    /// All columns with what `say` says of their types.
    fn columns(&self, say: fn(&DataType) -> String) -> String {
        let column = |field: &std::sync::Arc<Field>| format!("{}: {}", field.name(), say(field.data_type()));
        self.schema.fields().iter().map(column).collect::<Vec<_>>().join(", ")
    }

    fn feature(&self, column: &str, field: &str) -> Option<&Value> {
        self.features.as_ref()?.get(column)?.get(field)
    }

    /// The names of the classes of one column, if the metadata calls it a class label.
    fn declared(&self, column: &str) -> Option<Vec<String>> {
        let names = self.feature(column, "names")?.as_array()?;
        names.iter().map(|name| name.as_str().map(String::from)).collect::<Option<Vec<_>>>().filter(|n| !n.is_empty())
    }
}

/// The hub's description of the columns.
fn features(schema: &Schema) -> Option<Value> {
    let mut value: Value = serde_json::from_str(schema.metadata().get("huggingface")?).ok()?;
    Some(value.pointer_mut("/info/features")?.take())
}

fn column<K>(index: usize, field: &Field, kind: K, why: &str) -> Column<K> {
    Column { index, name: field.name().clone(), kind, why: why.into() }
}

/// The column with the likeliest name; of two that differ in case alone, the one in lower case, or else the first.
fn first_by_name<'a, K: Copy>(fields: &[(usize, &'a Field, K)], names: &[&str]) -> Option<(usize, &'a Field, K)> {
    let ranked = fields.iter().filter_map(|found| {
        let name = found.1.name();
        Some(((rank(name, names)?, name.chars().any(char::is_uppercase)), found))
    });
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, found)| *found)
}

/// The place of a column's name among the usual ones. Case and the kind of separator do not count.
fn rank(name: &str, names: &[&str]) -> Option<usize> {
    let name = name.trim().to_lowercase().replace(['-', ' ', '.'], "_");
    names.iter().position(|usual| *usual == name)
}

/// A type in plain words.
fn type_name(kind: &DataType) -> String {
    match kind {
        DataType::Boolean => "boolean".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".into(),
        kind if is_binary(kind) => "binary".into(),
        DataType::Dictionary(_, values) => format!("dictionary of {}", type_name(values)),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => {
            format!("list of {}", type_name(item.data_type()))
        }
        DataType::FixedSizeList(item, length) => format!("list of {length} {}", type_name(item.data_type())),
        DataType::Struct(fields) => {
            let field = |field: &std::sync::Arc<Field>| format!("{}: {}", field.name(), type_name(field.data_type()));
            format!("struct {{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        DataType::Null => "nothing but null".into(),
        kind => kind.to_string().to_lowercase(),
    }
}

/// A type in plain words, and why it can be no image.
fn why_no_image(kind: &DataType) -> String {
    let name = type_name(kind);
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            format!("{name} (paths or addresses are not followed; the bytes of the image files are needed)")
        }
        DataType::Struct(_) if ImageKind::of(kind).is_none() => format!("{name} (without binary `bytes`)"),
        _ if name.starts_with("list") => {
            format!("{name} (pixels as numbers are not read; the bytes of image files are needed)")
        }
        _ => name,
    }
}
