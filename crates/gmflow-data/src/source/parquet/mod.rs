//! Parquet files in the layout of the Hugging Face hub: encoded images in a struct column `{bytes, path}` (or a plain
//! binary column), the label in a column of numbers or text, the class names in the schema's metadata.

mod columns;
mod labels;
mod shards;
mod values;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::NullBuffer;
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{Image, ImageBytes, ImageDataset, StoredImage};
use crate::decode::{decode, dimensions, ending_of};
use crate::fingerprint::{Content, Fingerprint, listed};
use crate::settings::{Format, ImageSettings, MAX_SIZE};
use crate::storage::{Files, Storage};
use crate::{Error, Result};
use columns::{Chosen, ImageKind};
use labels::Labels;

/// Which columns hold the images and the labels. A log line says which columns were taken and why.
#[derive(Clone, Copy, Debug, Default)]
pub struct Columns<'a> {
    /// The column of images. By default the one that the hub's metadata calls an image, else one with a usual name such as `image`, else
    /// the only one with bytes.
    pub image: Option<&'a str>,
    /// The column of labels; an empty name stands for none. By default the one that the hub's metadata calls a class label, else one
    /// with a usual name such as `label` or `class`.
    pub label: Option<&'a str>,
}

/// Encoded images of one or more Parquet files, kept in memory and decoded on demand.
#[derive(Debug)]
pub struct ParquetDataset {
    rows: Rows,
    format: Format,
    class_names: Vec<String>,
}

/// The rows of all files.
#[derive(Debug, Default)]
struct Rows {
    chunks: Vec<Chunk>,
    /// The index of each chunk's first row.
    starts: Vec<usize>,
    len: usize,
    labels: Option<Labels>,
}

/// The images of one record batch.
#[derive(Debug)]
struct Chunk {
    path: PathBuf,
    /// Its first row in the file.
    first_row: usize,
    /// The encoded images.
    images: ArrayRef,
    /// Rows whose whole struct is null.
    nulls: Option<NullBuffer>,
}

impl ParquetDataset {
    /// Reads a file, every `*.parquet` file of a folder in the order of their names, or the files that match a pattern
    /// such as `data/train-*.parquet`.
    ///
    /// Labels are whole numbers of any width, also as floats or decimals; text, in which case the classes are the texts in the order of
    /// their bytes; or booleans, of which `false` is the first class. A null, a NaN, an empty text and a number that is no class are
    /// damage of their row.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] for a file that cannot be opened; [`crate::FilesError::File`] for one that is not Parquet, lacks the
    /// columns, has other columns than the files before or holds no rows; [`crate::FilesError::Config`] for a setting outside its domain or
    /// a pattern that matches nothing.
    pub fn open(path: &Path, columns: Columns, settings: &ImageSettings) -> Result<Self> {
        Self::open_with(&Files::new(&Storage::default())?, path, columns, settings)
    }

    /// The same of files that may be behind URLs.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(files: &Files, path: &Path, columns: Columns, settings: &ImageSettings) -> Result<Self> {
        settings.validate()?;
        let mut rows = Rows::default();
        let mut first: Option<(PathBuf, Chosen)> = None;
        for shard in shards::shards(files, path)? {
            // The reader panics on some forms of damage.
            let file = shards::open(files, &shard)?;
            let read = catch_unwind(AssertUnwindSafe(|| rows.read(&shard, file, columns, first.as_ref())));
            let chosen = read.unwrap_or_else(|_| {
                Err(Error::file(&shard, "content", "a valid Parquet file", "content on which the reader failed"))
            })?;
            first.get_or_insert((shard, chosen));
        }
        let Some((_, chosen)) = first.filter(|_| rows.len > 0) else {
            return Err(Error::file(path, "number of rows", "at least 1", 0));
        };
        let class_names = match (&mut rows.labels, &chosen.label) {
            (Some(labels), Some(column)) => labels.names(path, column, chosen.names.clone())?,
            _ => Vec::new(),
        };
        rows.check_bytes(path, &chosen)?;
        report(path, &rows, &chosen, &class_names);
        let size = match settings.size {
            Some(size) => [size, size],
            None => rows.first_size(path, settings)?,
        };
        let format = settings.format(size, 3);
        Ok(Self { rows, format, class_names })
    }
}

/// Says which columns were taken and why.
fn report(path: &Path, rows: &Rows, chosen: &Chosen, classes: &[String]) {
    let classes = match classes {
        [] => "no classes".into(),
        names => format!("{} classes: {}", names.len(), listed(names)),
    };
    let others = match chosen.others.as_slice() {
        [] => String::new(),
        names => format!("; columns not used: {}", listed(names)),
    };
    let (path, count, columns) = (path.display(), rows.len, chosen.describe());
    log::info!(target: crate::FOUND, "{path}: {count} rows, {columns}; {classes}{others}");
}

impl ImageDataset for ParquetDataset {
    fn len(&self) -> usize {
        self.rows.len
    }

    fn shape(&self) -> [usize; 3] {
        self.format.shape()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn class_images(&self) -> Option<Vec<u64>> {
        self.rows.labels.as_ref().map(|labels| labels.counts(self.class_names.len()))
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let class_images = self.class_images().unwrap_or_default();
        let content = self.rows.content(self.class_names.len());
        Some(Fingerprint::new(self.rows.len, &self.class_names, &class_images, &self.format, content))
    }

    fn name(&self, index: usize) -> String {
        match self.rows.place(index) {
            Ok((chunk, row)) => format!("{}, row {}", chunk.path.display(), chunk.first_row + row),
            Err(_) => format!("image {index}"),
        }
    }

    fn is_decoded(&self) -> bool {
        true
    }

    fn check_labels(&self) -> Result<()> {
        (0..self.rows.len).try_for_each(|index| self.label(index).map(drop))
    }

    fn stored(&self, index: usize) -> Result<StoredImage> {
        let (chunk, row) = self.rows.place(index)?;
        let size = dimensions(chunk.image(row)?, self.format.max_pixels);
        let size = size.map_err(|error| chunk.fault(row, &error.expected, error.got))?;
        Ok(StoredImage { size, format: "parquet".to_owned() })
    }

    fn file(&self, index: usize) -> Result<Option<ImageBytes>> {
        let (chunk, row) = self.rows.place(index)?;
        let bytes = chunk.image(row)?.to_vec();
        Ok(Some(ImageBytes { ending: ending_of(&bytes).to_owned(), bytes, label: self.label(index)? }))
    }

    fn get(&self, index: usize) -> Result<Image> {
        let (chunk, row) = self.rows.place(index)?;
        let pixels =
            decode(chunk.image(row)?, &self.format).map_err(|error| chunk.fault(row, &error.expected, error.got))?;
        Ok(Image { pixels, label: self.label(index)? })
    }
}

impl ParquetDataset {
    /// The label of a row; 0 without labels.
    fn label(&self, index: usize) -> Result<u32> {
        let Some(labels) = &self.rows.labels else { return Ok(0) };
        let classes = self.class_names.len();
        labels.get(index, classes).or_else(|got| {
            let (chunk, row) = self.rows.place(index)?;
            Err(chunk.fault(row, &format!("a label of {classes} classes"), got))
        })
    }
}

impl Rows {
    /// Appends the rows of one file and returns its columns, which must be those of the `first` file.
    fn read(&mut self, path: &Path, file: File, asked: Columns, first: Option<&(PathBuf, Chosen)>) -> Result<Chosen> {
        let invalid = |error: &dyn std::fmt::Display| Error::file(path, "content", "a valid Parquet file", error);
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| invalid(&error))?;
        let chosen = Chosen::new(path, builder.schema(), asked)?;
        if let Some((file, before)) = first {
            check_alike(path, &chosen, file, before)?;
        }
        let (image, label) = (chosen.image.index, chosen.label.as_ref().map(|label| label.index));
        let mask = ProjectionMask::roots(builder.parquet_schema(), [Some(image), label].into_iter().flatten());
        // Columns come back in the order of the file.
        let (image_at, label_at) = match label {
            Some(label) if label < image => (1, 0),
            _ => (0, 1),
        };
        let mut first_row = 0;
        for batch in builder.with_projection(mask).build().map_err(|error| invalid(&error))? {
            let batch: RecordBatch = batch.map_err(|error| invalid(&error))?;
            let images = batch.columns().get(image_at).ok_or_else(|| invalid(&"no image column"))?;
            if let Some(column) = &chosen.label {
                let labels = batch.columns().get(label_at).ok_or_else(|| invalid(&"no label column"))?;
                self.labels.get_or_insert_default().add(path, column, labels, first_row)?;
            }
            self.chunks.push(Chunk::new(path, first_row, images).map_err(|error| invalid(&error))?);
            self.starts.push(self.len);
            first_row += batch.num_rows();
            self.len += batch.num_rows();
        }
        Ok(chosen)
    }

    /// The chunk and the row in it of an index.
    fn place(&self, index: usize) -> Result<(&Chunk, usize)> {
        let position = self.starts.partition_point(|&start| start <= index).saturating_sub(1);
        match (self.chunks.get(position), self.starts.get(position)) {
            (Some(chunk), Some(start)) if index < self.len => Ok((chunk, index - start)),
            _ => Err(Error::config("index", format!("less than {}", self.len), index)),
        }
    }

    fn images(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.chunks.iter().flat_map(|chunk| (0..chunk.images.len()).map(|row| chunk.bytes(row)))
    }

    /// A table may hold the paths of images without the images.
    fn check_bytes(&self, path: &Path, chosen: &Chosen) -> Result<()> {
        if self.images().any(|bytes| bytes.is_some()) {
            return Ok(());
        }
        let got = match chosen.image.kind {
            ImageKind::Struct => {
                "null in every row (paths alone are not followed; store the table with the images in it)"
            }
            ImageKind::Bytes => "null in every row",
        };
        Err(Error::file(path, format!("column {}", chosen.image.name), "the bytes of image files", got))
    }

    /// The height and width of the first image that can be read.
    fn first_size(&self, path: &Path, settings: &ImageSettings) -> Result<[usize; 2]> {
        let limit = settings.format([1, 1], 3).max_pixels;
        let size = self.images().flatten().take(100).find_map(|bytes| dimensions(bytes, limit).ok());
        match size {
            Some(size) if size.iter().all(|side| *side <= MAX_SIZE) => Ok(size),
            Some([height, width]) => {
                let got = format!("{height}x{width} (the first image)");
                Err(Error::config("image.size", format!("1 to {MAX_SIZE}"), got))
            }
            None => {
                let first = self.images().flatten().next().and_then(gmflow_files::what_is);
                let got = first.map_or_else(|| "none".into(), |what| format!("none; the first is {what}"));
                Err(Error::file(path, "rows", "a readable image among the first 100", got))
            }
        }
    }

    /// What the images and labels are known by, whatever files they are in.
    fn content(&self, classes: usize) -> Content {
        let mut content = Content::default();
        for (row, bytes) in self.images().enumerate() {
            match bytes {
                Some(bytes) => content.contents(bytes),
                None => content.number(u64::MAX),
            }
            if let Some(labels) = &self.labels {
                content.number(labels.get(row, classes).map_or(u64::MAX, u64::from));
            }
        }
        content
    }
}

/// The files of one set have the same columns with the same kinds of values, and the same classes.
fn check_alike(path: &Path, chosen: &Chosen, file: &Path, first: &Chosen) -> Result<()> {
    let file = file.display();
    if !chosen.agrees(first) {
        let expected = format!("those of {file}: {}", first.describe());
        return Err(Error::file(path, "columns", expected, chosen.describe()));
    }
    if chosen.names != first.names {
        let names = |chosen: &Chosen| chosen.names.as_ref().map_or_else(|| "none".into(), |names| listed(names));
        let expected = format!("the names in {file}: {}", names(first));
        return Err(Error::file(path, "class names", expected, names(chosen)));
    }
    Ok(())
}

impl Chunk {
    /// The images of one record batch, from `first_row` of the file on. Of structs only the bytes are kept.
    fn new(path: &Path, first_row: usize, images: &ArrayRef) -> std::result::Result<Self, String> {
        let (bytes, nulls) = match images.as_struct_opt() {
            Some(parent) => (parent.column_by_name("bytes").unwrap_or(images), parent.nulls().cloned()),
            None => (images, None),
        };
        let images = values::without_dictionary(bytes)?;
        Ok(Self { path: path.into(), first_row, images, nulls })
    }

    /// The error for a row.
    fn fault(&self, row: usize, expected: &str, got: String) -> Error {
        Error::file(&self.path, format!("row {}", self.first_row + row), expected, got)
    }

    /// The encoded image of a row.
    fn image(&self, row: usize) -> Result<&[u8]> {
        self.bytes(row).ok_or_else(|| self.fault(row, "an encoded image", "null".into()))
    }

    /// The encoded image of a row, unless it is null.
    fn bytes(&self, row: usize) -> Option<&[u8]> {
        if self.images.is_null(row) || self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return None;
        }
        match self.images.data_type() {
            DataType::Binary => Some(self.images.as_binary::<i32>().value(row)),
            DataType::LargeBinary => Some(self.images.as_binary::<i64>().value(row)),
            DataType::BinaryView => Some(self.images.as_binary_view().value(row)),
            DataType::FixedSizeBinary(_) => Some(self.images.as_fixed_size_binary().value(row)),
            _ => None,
        }
    }
}
