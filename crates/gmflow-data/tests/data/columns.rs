//! Which columns of a table are taken, and what they may hold.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::types::Int64Type;
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, LargeListArray, ListArray, StringArray,
    StructArray,
};
use arrow_cast::cast;
use arrow_schema::{DataType, Field, Fields};
use gmflow_data::{Columns, Corrupt, Dataset, Error, FilesError, ImageDataset, ImageSettings, ParquetDataset};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::parquet::{picture, store, structs};

/// What a column of labels holds in the forms of one table.
fn forms() -> Vec<DataType> {
    let mut forms = vec![
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal128(10, 2),
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Binary,
    ];
    let dictionary = |key: DataType, value: DataType| DataType::Dictionary(Box::new(key), Box::new(value));
    forms.push(dictionary(DataType::Int8, DataType::Utf8));
    forms.push(dictionary(DataType::Int32, DataType::LargeUtf8));
    forms.push(dictionary(DataType::Int32, DataType::Int64));
    forms
}

fn is_text(form: &DataType) -> bool {
    match form {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// A column of these labels, as numbers or as names.
fn label_column(name: &str, labels: &[usize], form: &DataType) -> (Field, ArrayRef) {
    let array: ArrayRef = match is_text(form) {
        true => Arc::new(StringArray::from_iter_values(labels.iter().map(|label| class_name(*label)))),
        false => Arc::new(Int64Array::from_iter_values(labels.iter().map(|label| *label as i64))),
    };
    (Field::new(name, form.clone(), true), cast(&array, form).unwrap())
}

fn class_name(class: usize) -> String {
    format!("class {class}")
}

/// The hub's metadata with the names of these classes.
fn named(column: &str, classes: usize) -> String {
    let names: Vec<String> = (0..classes).map(class_name).collect();
    serde_json::json!({"info": {"features": {column: {"names": names, "_type": "ClassLabel"}}}}).to_string()
}

/// A column of these pictures: structs, or bytes of a type.
fn image_column(name: &str, pictures: &[Vec<u8>], form: Option<&DataType>) -> (Field, ArrayRef) {
    let rows: Vec<Option<&[u8]>> = pictures.iter().map(|bytes| Some(bytes.as_slice())).collect();
    match form {
        None => {
            let (field, array) = structs(&rows);
            (field.with_name(name), array)
        }
        Some(form) => {
            let array: ArrayRef = Arc::new(BinaryArray::from(rows));
            (Field::new(name, form.clone(), true), cast(&array, form).unwrap())
        }
    }
}

fn numbers(name: &str, values: &[i64]) -> (Field, ArrayRef) {
    (Field::new(name, DataType::Int64, true), Arc::new(Int64Array::from(values.to_vec())))
}

fn texts(name: &str, values: &[Option<&str>]) -> (Field, ArrayRef) {
    (Field::new(name, DataType::Utf8, true), Arc::new(StringArray::from(values.to_vec())))
}

fn floats(name: &str, values: &[f64]) -> (Field, ArrayRef) {
    (Field::new(name, DataType::Float64, true), Arc::new(Float64Array::from(values.to_vec())))
}

fn pictures(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|row| picture(row as u8)).collect()
}

/// A table of one file: two pictures and these columns.
fn table(folder: &Path, columns: Vec<(Field, ArrayRef)>) -> PathBuf {
    let mut all = vec![image_column("image", &pictures(2), None)];
    all.extend(columns);
    store(&folder.join("table.parquet"), all, None)
}

fn open(path: &Path) -> gmflow_data::Result<ParquetDataset> {
    ParquetDataset::open(path, Columns::default(), &ImageSettings::default())
}

fn labels(set: &ParquetDataset) -> Vec<u32> {
    (0..set.len()).map(|index| set.get(index).unwrap().label).collect()
}

/// The error of a table of two pictures and these columns.
fn refused(columns: Vec<(Field, ArrayRef)>, says: &[&str]) {
    let folder = TempDir::new().unwrap();
    let error = open(&table(folder.path(), columns)).unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, Error::Files(FilesError::File { .. })) && says.iter().all(|part| text.contains(part)),
        "{text}"
    );
}

#[test]
fn a_column_called_label_goes_before_other_numbers() {
    let folder = TempDir::new().unwrap();
    let columns = vec![
        numbers("image_id", &[0, 1]),
        numbers("width", &[8, 8]),
        texts("label", &[Some("dog"), Some("cat")]),
        numbers("height", &[8, 8]),
    ];
    let set = open(&table(folder.path(), columns)).unwrap();
    assert_eq!((set.class_names(), labels(&set)), (&["cat".to_string(), "dog".into()][..], vec![1, 0]));
    assert_eq!(set.class_images(), Some(vec![1, 1]));
    let columns = vec![numbers("id", &[5, 6]), numbers("label", &[0, 2])];
    let set = open(&table(folder.path(), columns)).unwrap();
    assert_eq!((set.class_names().len(), labels(&set), set.class_images()), (3, vec![0, 2], Some(vec![1, 0, 1])));
    // Of two, the likelier name; case and separators do not count.
    let columns = vec![numbers("coarse_label", &[0, 0]), numbers("Fine Label", &[1, 0])];
    assert_eq!(labels(&open(&table(folder.path(), columns)).unwrap()), [1, 0]);
    // A column that cannot be a label gives way to one that can.
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1)]), Some([Some(2)])]);
    let columns = vec![
        (Field::new("label", lists.data_type().clone(), true), Arc::new(lists) as ArrayRef),
        numbers("class", &[1, 0]),
    ];
    assert_eq!(labels(&open(&table(folder.path(), columns)).unwrap()), [1, 0]);
}

#[test]
fn booleans_and_floats_are_labels_where_they_are_whole() {
    let folder = TempDir::new().unwrap();
    let booleans = Arc::new(BooleanArray::from(vec![true, false])) as ArrayRef;
    let set = open(&table(folder.path(), vec![(Field::new("label", DataType::Boolean, true), booleans)])).unwrap();
    assert_eq!((set.class_names(), labels(&set)), (&["false".to_string(), "true".into()][..], vec![1, 0]));
    let set = open(&table(folder.path(), vec![floats("label", &[2.0, 0.0])])).unwrap();
    assert_eq!((set.class_names().len(), labels(&set)), (3, vec![2, 0]));
    refused(vec![floats("label", &[1.0, 0.5])], &["column label, row 1", "whole numbers", "got 0.5"]);
    refused(vec![floats("label", &[f64::INFINITY, 0.0])], &["column label, row 0", "inf"]);
}

#[test]
fn where_nothing_fits_the_columns_and_their_types_are_listed() {
    let both = |columns: Vec<(Field, ArrayRef)>| {
        let says = ["label_column", "width: int64", "image: struct {bytes: binary, path: text}"];
        refused(columns, &says);
    };
    both(vec![numbers("width", &[8, 8])]);
    both(vec![numbers("width", &[8, 8]), texts("caption", &[Some("a"), Some("b")])]);
    // An empty name does without.
    let folder = TempDir::new().unwrap();
    let path = table(folder.path(), vec![numbers("width", &[8, 8])]);
    let none = Columns { image: None, label: Some("") };
    let set = ParquetDataset::open(&path, none, &ImageSettings::default()).unwrap();
    assert!(set.class_names().is_empty() && set.class_images().is_none());
    // The index that pandas stores is no column.
    let path = table(folder.path(), vec![numbers("__index_level_0__", &[0, 1])]);
    assert!(open(&path).unwrap().class_names().is_empty());
    let asked = Columns { image: None, label: Some("image") };
    let error = ParquetDataset::open(&path, asked, &ImageSettings::default()).unwrap_err().to_string();
    assert!(error.contains("column image"), "{error}");
}

#[test]
fn numbers_that_are_no_classes_are_refused() {
    refused(vec![numbers("label", &[7, 9_000_000])], &["column label", "below 1048576", "9000000"]);
    refused(vec![numbers("label", &[-1, -1])], &["column label", "at least one label"]);
    refused(vec![texts("label", &[None, Some("")])], &["column label", "at least one label"]);
    let huge = Arc::new(arrow_array::UInt64Array::from(vec![u64::MAX, 0])) as ArrayRef;
    refused(vec![(Field::new("label", DataType::UInt64, true), huge)], &["column label", "18446744073709551615"]);
}

#[test]
fn a_missing_label_is_damage_of_its_row() {
    for column in [
        texts("label", &[Some("cat"), None]),
        texts("label", &[Some("cat"), Some("")]),
        floats("label", &[0.0, f64::NAN]),
        numbers("label", &[0, -1]),
    ] {
        let folder = TempDir::new().unwrap();
        let set = open(&table(folder.path(), vec![column.clone()])).unwrap();
        assert_eq!(set.get(0).unwrap().label, 0);
        let error = set.get(1).unwrap_err();
        assert!(error.is_corrupt() && error.to_string().contains("row 1: expected a label"), "{error} of {column:?}");
        // Training finds it before the first step, unless damage is passed over.
        let set = Arc::new(set);
        let of = |corrupt| Dataset::Images { images: set.clone(), corrupt, horizontal_flip: false };
        let error = of(Corrupt::Refuse).check_labels().unwrap_err().to_string();
        assert!(
            error.contains("row 1: expected a label") && error.contains("; --set data.source.image.corrupt=skip"),
            "{error}"
        );
        of(Corrupt::Skip).check_labels().unwrap();
        assert_eq!(set.class_images(), Some(vec![1]));
    }
}

#[test]
fn columns_without_the_bytes_of_images_are_named() {
    let folder = TempDir::new().unwrap();
    let refused = |columns: Vec<(Field, ArrayRef)>, says: &[&str]| {
        let error = open(&store(&folder.path().join("t.parquet"), columns, None)).unwrap_err().to_string();
        assert!(says.iter().all(|part| error.contains(part)), "{error}");
    };
    let label = || numbers("label", &[0, 1]);
    refused(vec![structs(&[None, None]), label()], &["column img", "null in every row (paths alone"]);
    refused(vec![texts("image", &[Some("a.png"), Some("b.png")]), label()], &["image: text (paths", "label: int64"]);
    let pixels = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1)]), Some([Some(2)])]);
    let field = Field::new("image", pixels.data_type().clone(), true);
    refused(vec![(field, Arc::new(pixels)), label()], &["image: list of int64 (pixels as numbers"]);
    let large = LargeListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1)]), Some([Some(2)])]);
    let field = Field::new("image", large.data_type().clone(), true);
    refused(vec![(field, Arc::new(large)), label()], &["image: list of int64 (pixels as numbers"]);
    let fields: Fields = vec![Field::new("path", DataType::Utf8, true)].into();
    let paths = StructArray::new(fields.clone(), vec![Arc::new(StringArray::from(vec!["a", "b"]))], None);
    let field = Field::new("image", DataType::Struct(fields), true);
    refused(vec![(field, Arc::new(paths)), label()], &["image: struct {path: text} (without binary `bytes`)"]);
    let two = |name| image_column(name, &pictures(2), Some(&DataType::Binary));
    refused(vec![two("left"), two("right"), label()], &["several columns fit", "left: binary, right: binary"]);
    refused(vec![label()], &["no column fits", "label: int64"]);
}

#[test]
fn files_of_one_set_have_the_same_columns() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let image = || image_column("image", &pictures(2), None);
    store(&path("a.parquet"), vec![image(), numbers("label", &[0, 1])], None);
    for other in [
        vec![image(), texts("label", &[Some("a"), Some("b")])],
        vec![image(), numbers("class", &[0, 1])],
        vec![image()],
        vec![image_column("image", &pictures(2), Some(&DataType::Binary)), numbers("label", &[0, 1])],
        vec![image_column("img", &pictures(2), None), numbers("label", &[0, 1])],
    ] {
        store(&path("b.parquet"), other, None);
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("b.parquet: columns") && error.contains("a.parquet"), "{error}");
    }
    store(&path("b.parquet"), vec![image(), numbers("label", &[0, 1])], Some(&named("label", 2)));
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("b.parquet: class names"), "{error}");
    // Names that macOS and others leave beside the files are no files of the set.
    std::fs::remove_file(path("b.parquet")).unwrap();
    std::fs::write(path("._a.parquet"), b"\0\x05\x16\x07").unwrap();
    assert_eq!(open(folder.path()).unwrap().len(), 2);
    assert_eq!(open(&path("*.parquet")).unwrap().len(), 2);
}

#[test]
fn other_files_in_place_of_a_table_are_called_what_they_are() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("t.parquet");
    for (bytes, what) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"[..], "Git LFS"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        (b"", "an empty file"),
        (b"PK\x03\x04", "ZIP"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = open(&path).unwrap_err().to_string();
        assert!(error.contains("t.parquet") && error.contains(what), "{error}");
    }
}

/// How one table is written.
#[derive(Clone, Debug)]
struct Form {
    label: DataType,
    image: Option<DataType>,
    names: (&'static str, &'static str),
    /// The order of the columns.
    order: Vec<usize>,
    /// Rows of each file but the last.
    cut: usize,
}

fn form() -> impl Strategy<Value = Form> {
    let binary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Binary));
    let images =
        vec![None, Some(DataType::Binary), Some(DataType::LargeBinary), Some(DataType::BinaryView), Some(binary)];
    let names =
        prop::sample::select(vec![("image", "label"), ("img", "fine_label"), ("png", "Category"), ("x", "target")]);
    let order = Just((0..4).collect::<Vec<usize>>()).prop_shuffle();
    (prop::sample::select(forms()), prop::sample::select(images), names, order, 1usize..20)
        .prop_map(|(label, image, names, order, cut)| Form { label, image, names, order, cut })
}

/// Writes the table in a form and opens it.
fn written(form: &Form, labels: &[usize], classes: usize) -> ParquetDataset {
    let folder = TempDir::new().unwrap();
    let (image, label) = form.names;
    let rows: Vec<i64> = (0..labels.len() as i64).collect();
    let columns = [
        image_column(image, &pictures(labels.len()), form.image.as_ref()),
        label_column(label, labels, &form.label),
        numbers("width", &rows),
        numbers("image_id", &rows),
    ];
    let metadata = (!is_text(&form.label)).then(|| named(label, classes));
    for (number, start) in (0..labels.len()).step_by(form.cut).enumerate() {
        let length = form.cut.min(labels.len() - start);
        let part = |at: &usize| (columns[*at].0.clone(), columns[*at].1.slice(start, length));
        let path = folder.path().join(format!("part-{number:02}.parquet"));
        store(&path, form.order.iter().map(part).collect(), metadata.as_deref());
    }
    open(folder.path()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Every documented form of a table is the same data set: types of labels and images, names and order of columns, files.
    #[test]
    fn every_form_of_a_table_reads_the_same(form in form(), drawn in prop::collection::vec(0usize..4, 3..20)) {
        // Texts know the classes that have images alone, so every class has one.
        let classes = drawn.iter().max().unwrap() + 1;
        let labels: Vec<usize> = (0..classes).chain(drawn).collect();
        let plain = Form {
            label: DataType::Int64, image: None, names: ("image", "label"), order: vec![0, 1, 2, 3], cut: labels.len(),
        };
        let (expected, got) = (written(&plain, &labels, classes), written(&form, &labels, classes));
        prop_assert_eq!(expected.class_names(), got.class_names());
        prop_assert_eq!(expected.fingerprint(), got.fingerprint());
        for (index, label) in labels.iter().enumerate() {
            let image = got.get(index).unwrap();
            prop_assert_eq!(image.label as usize, *label);
            prop_assert_eq!(expected.get(index).unwrap(), image);
        }
    }
}

#[test]
fn rows_of_one_file_may_come_in_several_batches() {
    // The reader hands out 1,024 rows at a time.
    let folder = TempDir::new().unwrap();
    let count = 2500;
    let labels: Vec<usize> = (0..count).map(|row| row % 3).collect();
    let (image, label) =
        (image_column("image", &pictures(count), None), label_column("label", &labels, &DataType::Utf8));
    let set = open(&store(&folder.path().join("t.parquet"), vec![image, label], None)).unwrap();
    assert_eq!((set.len(), set.get(2499).unwrap().label, set.class_images()), (count, 0, Some(vec![834, 833, 833])));
}
