use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use arrow_array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields, Schema};
use gmflow_data::{Batches, Columns, DatasetConfig, Error, FilesError, ImageDataset, ImageSettings, ParquetDataset};
use image::{ImageFormat, Rgb, RgbImage};
use tempfile::TempDir;

use crate::common::{encode, skip};

const CLASSES: &str = r#"{"info": {"features": {"img": {"_type": "Image"}, "fine": {"_type": "Value"},
    "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}"#;

pub fn picture(red: u8) -> Vec<u8> {
    encode(RgbImage::from_pixel(4, 4, Rgb([red, 0, 0])), ImageFormat::Png)
}

/// A struct column of encoded images.
pub fn structs(rows: &[Option<&[u8]>]) -> (Field, ArrayRef) {
    let fields: Fields =
        vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)].into();
    let paths = StringArray::from(vec![None::<&str>; rows.len()]);
    let bytes = BinaryArray::from(rows.to_vec());
    let array = StructArray::new(fields.clone(), vec![Arc::new(bytes), Arc::new(paths)], None);
    (Field::new("img", DataType::Struct(fields), true), Arc::new(array))
}

pub fn store(path: &Path, columns: Vec<(Field, ArrayRef)>, metadata: Option<&str>) -> PathBuf {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let entry = metadata.map(|text| ("huggingface".to_string(), text.to_string()));
    let schema =
        Arc::new(Schema::new(fields).with_metadata(entry.into_iter().collect::<std::collections::HashMap<_, _>>()));
    let batch = RecordBatch::try_new(schema.clone(), arrays).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path.into()
}

pub fn labels(values: Vec<Option<i64>>) -> (Field, ArrayRef) {
    (Field::new("label", DataType::Int64, true), Arc::new(Int64Array::from(values)))
}

fn open(path: &Path) -> gmflow_data::Result<ParquetDataset> {
    ParquetDataset::open(path, Columns::default(), &ImageSettings::default())
}

#[test]
fn shards_are_one_set_in_the_order_of_their_names() {
    let folder = TempDir::new().unwrap();
    for (name, reds) in [("train-01.parquet", [3u8, 4]), ("train-00.parquet", [1, 2]), ("test-00.parquet", [9, 9])] {
        let pictures = reds.map(picture);
        let rows: Vec<Option<&[u8]>> = pictures.iter().map(|bytes| Some(bytes.as_slice())).collect();
        store(&folder.path().join(name), vec![structs(&rows), labels(vec![Some(1), Some(0)])], Some(CLASSES));
    }
    let red = |set: &ParquetDataset, index| ((set.get(index).unwrap().pixels[0] + 1.0) * 127.5).round() as u8;
    let train = open(&folder.path().join("train-*.parquet")).unwrap();
    assert_eq!((train.len(), train.shape()), (4, [3, 4, 4]));
    assert_eq!(train.class_names(), ["cat", "dog"]);
    assert_eq!((0..4).map(|index| red(&train, index)).collect::<Vec<u8>>(), [1, 2, 3, 4]);
    assert_eq!((0..4).map(|index| train.get(index).unwrap().label).collect::<Vec<u32>>(), [1, 0, 1, 0]);
    assert!(matches!(train.get(4), Err(Error::Files(FilesError::Config { .. }))));
    let all = open(folder.path()).unwrap();
    assert_eq!((all.len(), red(&all, 0)), (6, 9));
    assert!(open(&folder.path().join("none-*.parquet")).unwrap_err().to_string().starts_with("path"));
    let size = ImageSettings { size: Some(2), channels: Some(1), ..ImageSettings::default() };
    let small = ParquetDataset::open(&folder.path().join("test-00.parquet"), Columns::default(), &size).unwrap();
    assert_eq!(small.get(0).unwrap().pixels.len(), 4);
}

#[test]
fn columns_are_found_by_type_or_by_name() {
    let folder = TempDir::new().unwrap();
    let picture = picture(5);
    let other = BinaryArray::from(vec![Some(picture.as_slice())]);
    let columns = vec![
        (Field::new("fine", DataType::Int32, true), Arc::new(Int32Array::from(vec![7])) as ArrayRef),
        structs(&[Some(&picture)]),
        labels(vec![Some(1)]),
        (Field::new("thumbnail", DataType::Binary, true), Arc::new(other) as ArrayRef),
    ];
    let path = store(&folder.path().join("x.parquet"), columns, Some(CLASSES));
    let settings = ImageSettings::default();
    // The declared class label wins over an earlier column of integers.
    assert_eq!(open(&path).unwrap().get(0).unwrap().label, 1);
    let named = Columns { image: Some("thumbnail"), label: Some("fine") };
    let set = ParquetDataset::open(&path, named, &settings).unwrap();
    assert_eq!(set.get(0).unwrap().label, 7);
    assert_eq!(set.class_names().len(), 8);
    for columns in [
        Columns { image: Some("nothing"), label: None },
        Columns { image: Some("label"), label: None },
        Columns { image: None, label: Some("img") },
    ] {
        assert!(
            matches!(ParquetDataset::open(&path, columns, &settings), Err(Error::Files(FilesError::File { .. }))),
            "{columns:?}"
        );
    }
}

#[test]
fn a_set_without_labels_has_no_classes() {
    let folder = TempDir::new().unwrap();
    let picture = picture(5);
    let path = store(&folder.path().join("x.parquet"), vec![structs(&[Some(&picture)])], None);
    let set = open(&path).unwrap();
    assert!(set.class_names().is_empty());
    assert_eq!(set.get(0).unwrap().label, 0);
}

/// Row 0 is sound; the others lack bytes, are no image, are cut, or have a label that is null, negative or too high.
fn damaged(folder: &Path) -> PathBuf {
    let sound = encode(RgbImage::from_fn(16, 16, |x, y| Rgb([(x * y) as u8, 9, 9])), ImageFormat::Jpeg);
    let rows = [
        Some(&sound[..]),
        None,
        Some(b"no image"),
        Some(&sound[..sound.len() - 40]),
        Some(&sound[..]),
        Some(&sound[..]),
        Some(&sound[..]),
    ];
    let classes = labels(vec![Some(0), Some(0), Some(0), Some(1), None, Some(-1), Some(2)]);
    store(&folder.join("x.parquet"), vec![structs(&rows), classes], Some(CLASSES))
}

#[test]
fn damaged_rows_are_named() {
    let folder = TempDir::new().unwrap();
    let set = open(&damaged(folder.path())).unwrap();
    assert_eq!(set.len(), 7);
    set.get(0).unwrap();
    for row in 1..7 {
        let text = set.get(row).unwrap_err().to_string();
        assert!(text.contains("x.parquet") && text.contains(&format!("row {row}")), "{text}");
    }
}

#[test]
fn damaged_rows_are_refused_or_replaced() {
    let folder = TempDir::new().unwrap();
    let config = |image| DatasetConfig::Parquet {
        path: damaged(folder.path()),
        image_column: None,
        label_column: None,
        image,
        storage: Default::default(),
    };
    let refuse = Batches::new(config(ImageSettings::default()).open(folder.path()).unwrap(), 7, 1).unwrap();
    assert!(matches!(refuse.batch(0), Err(Error::Files(FilesError::File { .. }))));
    let replace = Batches::new(config(skip()).open(folder.path()).unwrap(), 7, 1).unwrap();
    assert_eq!(replace.batch(0).unwrap().indices, [0; 7]);
}

#[test]
fn hostile_files_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let sound = std::fs::read(damaged(folder.path())).unwrap();
    let path = folder.path().join("bad.parquet");
    for cut in [0, 4, 8, sound.len() / 2, sound.len() - 1] {
        std::fs::write(&path, &sound[..cut]).unwrap();
        let error = open(&path).unwrap_err();
        assert!(
            matches!(error, Error::Files(FilesError::File { .. })) && error.to_string().contains("bad.parquet"),
            "{error}"
        );
    }
    for at in (0..sound.len()).step_by(7) {
        let mut damaged = sound.clone();
        damaged[at] ^= 0xff;
        std::fs::write(&path, &damaged).unwrap();
        if let Ok(set) = open(&path) {
            (0..set.len()).for_each(|index| drop(set.get(index)));
        }
    }
    let numbers = store(&path, vec![labels(vec![Some(1)])], None);
    assert!(open(&numbers).unwrap_err().to_string().contains("label: int64"));
    assert!(matches!(open(&folder.path().join("missing.parquet")), Err(Error::Files(FilesError::Io { .. }))));
}
