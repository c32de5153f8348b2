//! Parquet files in the layout of the Hugging Face hub: encoded images in a struct column `{bytes, path}` (or a plain
//! binary column), the label in an integer column, the class names in the schema's metadata.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{Image, ImageDataset};
use crate::decode::{Format, decode, dimensions};
use crate::settings::{ImageSettings, MAX_SIZE};
use crate::survey::Stored;
use crate::{Error, Result};

/// Which columns hold the images and the labels; columns that are not named are found by their type.
#[derive(Clone, Copy, Debug, Default)]
pub struct Columns<'a> {
    /// The column of images; by default the first of a fitting type.
    pub image: Option<&'a str>,
    /// The column of labels; by default the one that the metadata calls a class label, else the first of integers, else
    /// there are no classes.
    pub label: Option<&'a str>,
}

/// Encoded images of one or more Parquet files, kept in memory and decoded on demand.
#[derive(Debug)]
pub struct ParquetDataset {
    chunks: Vec<Chunk>,
    /// The index of each chunk's first row, and the number of all rows.
    starts: Vec<usize>,
    format: Format,
    class_names: Vec<String>,
}

/// The rows of one record batch.
#[derive(Debug)]
struct Chunk {
    path: PathBuf,
    first_row: usize,
    images: ArrayRef,
    labels: Option<ArrayRef>,
}

impl ParquetDataset {
    /// Reads a file, every `*.parquet` file of a folder in the order of their names, or the files that match a pattern
    /// such as `data/train-*.parquet`.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be opened; [`Error::File`] for one that is not Parquet, lacks the columns
    /// or holds no rows; [`Error::Config`] for a setting outside its domain or a pattern that matches nothing.
    pub fn open(path: &Path, columns: Columns, settings: &ImageSettings) -> Result<Self> {
        settings.validate()?;
        let mut chunks = Vec::new();
        let mut class_names = None;
        for shard in shards(path)? {
            // The reader panics on some forms of damage.
            let read = catch_unwind(AssertUnwindSafe(|| read_shard(&shard, columns, &mut chunks)));
            let names = read.unwrap_or_else(|_| {
                Err(Error::file(&shard, "content", "a valid Parquet file", "content on which the reader failed"))
            })?;
            if class_names.get_or_insert_with(|| names.clone()) != &names {
                let expected = format!("the classes of the first file, {class_names:?}");
                return Err(Error::file(shard, "class names", expected, format!("{names:?}")));
            }
        }
        let mut starts = vec![0];
        let mut total = 0;
        for chunk in &chunks {
            total += chunk.images.len();
            starts.push(total);
        }
        if total == 0 {
            return Err(Error::file(path, "number of rows", "at least 1", 0));
        }
        let class_names = class_names.flatten().unwrap_or_else(|| numbered_classes(&chunks));
        let size = match settings.size {
            Some(size) => [size, size],
            None => first_size(path, &chunks)?,
        };
        Ok(Self { chunks, starts, format: settings.format(size, 3), class_names })
    }
}

impl ImageDataset for ParquetDataset {
    fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    fn shape(&self) -> [usize; 3] {
        self.format.shape()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn stored(&self, index: usize) -> Result<Stored> {
        let (chunk, row) = self.place(index)?;
        let fault = |expected: &str, got: String| {
            Error::file(&chunk.path, format!("row {}", chunk.first_row + row), expected, got)
        };
        let bytes = chunk.bytes(row).ok_or_else(|| fault("an encoded image", "null".into()))?;
        let size = dimensions(bytes).map_err(|error| fault(&error.expected, error.got))?;
        Ok(Stored { size, format: "parquet".to_owned() })
    }

    fn get(&self, index: usize) -> Result<Image> {
        let (chunk, row) = self.place(index)?;
        let fault = |expected: &str, got: String| {
            Error::file(&chunk.path, format!("row {}", chunk.first_row + row), expected, got)
        };
        let bytes = chunk.bytes(row).ok_or_else(|| fault("an encoded image", "null".into()))?;
        let pixels = decode(bytes, &self.format).map_err(|error| fault(&error.expected, error.got))?;
        let label = match chunk.label(row) {
            None => 0,
            Some(label) => label
                .and_then(|label| u32::try_from(label).ok())
                .filter(|&label| (label as usize) < self.class_names.len())
                .ok_or_else(|| fault(&format!("a label below {}", self.class_names.len()), format!("{label:?}")))?,
        };
        Ok(Image { pixels, label })
    }
}

impl ParquetDataset {
    /// The part that holds the image at `index`, and its row there.
    fn place(&self, index: usize) -> Result<(&Chunk, usize)> {
        let position = self.starts.partition_point(|&start| start <= index).saturating_sub(1);
        match (self.chunks.get(position), self.starts.get(position)) {
            (Some(chunk), Some(start)) => Ok((chunk, index - start)),
            _ => Err(Error::config("index", format!("less than {}", self.len()), index)),
        }
    }
}

impl Chunk {
    /// The encoded image of a row, unless it is null.
    fn bytes(&self, row: usize) -> Option<&[u8]> {
        let values: &ArrayRef = match self.images.as_struct_opt() {
            Some(parent) if parent.is_null(row) => return None,
            Some(parent) => parent.column_by_name("bytes")?,
            None => &self.images,
        };
        if values.is_null(row) {
            return None;
        }
        match values.data_type() {
            DataType::Binary => Some(values.as_binary::<i32>().value(row)),
            DataType::LargeBinary => Some(values.as_binary::<i64>().value(row)),
            DataType::BinaryView => Some(values.as_binary_view().value(row)),
            _ => None,
        }
    }

    /// The label of a row, null inside; `None` without a column of labels.
    fn label(&self, row: usize) -> Option<Option<i64>> {
        let labels = self.labels.as_ref()?.as_primitive_opt::<Int64Type>()?;
        Some((!labels.is_null(row)).then(|| labels.value(row)))
    }
}

/// The files that `path` stands for.
fn shards(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).map_err(|error| Error::io(path, error))? {
            let file = entry.map_err(|error| Error::io(path, error))?.path();
            if file.extension().is_some_and(|extension| extension == "parquet") && file.is_file() {
                found.push(file);
            }
        }
        if found.is_empty() {
            return Err(Error::file(path, "folder", "at least one *.parquet file", "none"));
        }
    } else if let Some(pattern) = path.to_str().filter(|text| !path.exists() && text.contains(['*', '?', '['])) {
        let paths = glob::glob(pattern).map_err(|error| Error::config("path", "a file, folder or pattern", error))?;
        for file in paths {
            found.push(file.map_err(|error| Error::io(error.path().to_path_buf(), error.into()))?);
        }
        if found.is_empty() {
            return Err(Error::config("path", "a pattern that matches files", pattern));
        }
    } else {
        found.push(path.to_path_buf());
    }
    found.sort();
    Ok(found)
}

/// Appends the rows of one file and returns its class names, if the metadata holds any.
fn read_shard(path: &Path, columns: Columns, chunks: &mut Vec<Chunk>) -> Result<Option<Vec<String>>> {
    let invalid = |error: &dyn std::fmt::Display| Error::file(path, "content", "a valid Parquet file", error);
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| invalid(&error))?;
    let schema = builder.schema().clone();
    let features = features(&schema);
    let image = image_column(path, &schema, columns.image)?;
    let label = label_column(path, &schema, columns.label, features.as_ref())?;
    let names = label.and_then(|label| class_names(features.as_ref()?, schema.fields().get(label)?.name()));
    let mask = ProjectionMask::roots(builder.parquet_schema(), [Some(image), label].into_iter().flatten());
    // Columns come back in the order of the file.
    let (image_at, label_at) = match label {
        Some(label) if label < image => (1, Some(0)),
        Some(_) => (0, Some(1)),
        None => (0, None),
    };
    let mut first_row = 0;
    for batch in builder.with_projection(mask).build().map_err(|error| invalid(&error))? {
        let batch: RecordBatch = batch.map_err(|error| invalid(&error))?;
        let images = batch.columns().get(image_at).cloned().ok_or_else(|| invalid(&"no image column"))?;
        let labels = match label_at.and_then(|at| batch.columns().get(at)) {
            Some(labels) => Some(arrow::compute::cast(labels, &DataType::Int64).map_err(|error| invalid(&error))?),
            None => None,
        };
        let rows = batch.num_rows();
        chunks.push(Chunk { path: path.into(), first_row, images, labels });
        first_row += rows;
    }
    Ok(names)
}

fn is_binary(kind: &DataType) -> bool {
    matches!(kind, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

fn is_image(field: &Field) -> bool {
    match field.data_type() {
        DataType::Struct(fields) => fields.iter().any(|f| f.name() == "bytes" && is_binary(f.data_type())),
        kind => is_binary(kind),
    }
}

fn is_label(field: &Field) -> bool {
    field.data_type().is_integer()
}

/// The position of the column with this name, which must satisfy `fits`.
fn named(path: &Path, schema: &Schema, name: &str, expected: &str, fits: fn(&Field) -> bool) -> Result<usize> {
    match schema.fields().find(name) {
        Some((position, field)) if fits(field) => Ok(position),
        Some((_, field)) => Err(Error::file(path, format!("column {name}"), expected, field.data_type())),
        None => {
            let present: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            Err(Error::file(path, "columns", format!("one named {name}"), present.join(", ")))
        }
    }
}

fn image_column(path: &Path, schema: &Schema, name: Option<&str>) -> Result<usize> {
    let expected = "a struct with binary `bytes`, or binary";
    if let Some(name) = name {
        return named(path, schema, name, expected, is_image);
    }
    schema.fields().iter().position(|field| is_image(field)).ok_or_else(|| {
        let present: Vec<String> =
            schema.fields().iter().map(|f| format!("{}: {}", f.name(), f.data_type())).collect();
        Error::file(path, "columns", format!("one of images ({expected})"), present.join(", "))
    })
}

fn label_column(
    path: &Path,
    schema: &Schema,
    name: Option<&str>,
    features: Option<&serde_json::Value>,
) -> Result<Option<usize>> {
    if let Some(name) = name {
        return named(path, schema, name, "integers", is_label).map(Some);
    }
    let declared = |field: &Field| features.is_some_and(|features| class_names(features, field.name()).is_some());
    let fields = schema.fields();
    let position = fields.iter().position(|field| is_label(field) && declared(field));
    Ok(position.or_else(|| fields.iter().position(|field| is_label(field))))
}

/// The hub's description of the columns.
fn features(schema: &Schema) -> Option<serde_json::Value> {
    let text = schema.metadata().get("huggingface")?;
    let mut value: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(value.pointer_mut("/info/features")?.take())
}

/// The names of the classes of one column, if it is a class label.
fn class_names(features: &serde_json::Value, column: &str) -> Option<Vec<String>> {
    let names = features.get(column)?.get("names")?.as_array()?;
    names.iter().map(|name| name.as_str().map(String::from)).collect()
}

/// Names for labels that have none: their numbers.
fn numbered_classes(chunks: &[Chunk]) -> Vec<String> {
    let labels = |chunk: &Chunk| arrow::compute::max(chunk.labels.as_ref()?.as_primitive_opt::<Int64Type>()?);
    let highest = chunks.iter().filter_map(labels).max().and_then(|label| u32::try_from(label).ok());
    highest
        .filter(|&label| label < MAX_CLASSES)
        .map_or_else(Vec::new, |highest| (0..=highest).map(|class| class.to_string()).collect())
}

/// Most classes that are numbered for a set without class names.
const MAX_CLASSES: u32 = 1 << 20;

/// The height and width of the first image that can be read.
fn first_size(path: &Path, chunks: &[Chunk]) -> Result<[usize; 2]> {
    let images = chunks.iter().flat_map(|chunk| (0..chunk.images.len()).filter_map(|row| chunk.bytes(row)));
    let size = images.take(100).find_map(|bytes| dimensions(bytes).ok());
    match size {
        Some(size) if size.iter().all(|side| *side <= MAX_SIZE) => Ok(size),
        Some([height, width]) => Err(Error::config(
            "image.size",
            format!("1 to {MAX_SIZE}"),
            format!("{height}x{width} (the first image)"),
        )),
        None => Err(Error::file(path, "rows", "a readable image among the first 100", "none")),
    }
}
