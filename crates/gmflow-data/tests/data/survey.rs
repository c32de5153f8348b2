//! What a set of images is guessed to be, and what is seen of it.

use crate::common::{encode, gzip, idx};
use gmflow_data::{DatasetConfig, Error};
use image::{GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use std::path::Path;

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn an_idx_file_is_found_with_its_labels() {
    let folder = tempfile::tempdir().unwrap();
    let pixels: Vec<u8> = (0..3 * 12 * 12).map(|i| (i * 7 % 256) as u8).collect();
    write(folder.path(), "train-images-idx3-ubyte.gz", &gzip(&idx(&[3, 12, 12], &pixels)));
    write(folder.path(), "train-labels-idx1-ubyte.gz", &gzip(&idx(&[3], &[0, 2, 1])));
    let source = DatasetConfig::guess(&folder.path().join("train-images-idx3-ubyte.gz")).unwrap();
    let DatasetConfig::Idx { labels: Some(labels), .. } = &source else { panic!("{source:?}") };
    assert!(labels.ends_with("train-labels-idx1-ubyte.gz"));
    let survey = source.survey().unwrap();
    assert_eq!((survey.images, survey.classes.len(), survey.grey), (3, 3, true));
    assert_eq!((survey.sizes, survey.one_square_size(), survey.smallest()), ([[12, 12], [12, 12]], true, 12));
}

#[test]
fn sizes_formats_and_colours_of_a_folder_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let grey = encode(GrayImage::from_pixel(40, 20, Luma([90])), ImageFormat::Png);
    write(folder.path(), "cats/a.png", &grey);
    let source = DatasetConfig::guess(folder.path()).unwrap();
    assert!(matches!(source, DatasetConfig::Folder { .. }));
    let survey = source.survey().unwrap();
    assert_eq!((survey.grey, survey.damaged), (true, None));

    let colours = RgbImage::from_fn(60, 50, |x, _| if x < 30 { Rgb([200, 10, 10]) } else { Rgb([10, 10, 200]) });
    write(folder.path(), "dogs/b.jpg", &encode(colours, ImageFormat::Jpeg));
    write(folder.path(), "dogs/c.jpg", b"no picture");
    let survey = source.survey().unwrap();
    assert_eq!((survey.images, survey.looked_at, survey.grey), (3, 2, false));
    assert_eq!((survey.sizes, survey.one_square_size()), ([[20, 40], [50, 60]], false));
    assert!(survey.smallest_image.ends_with("cats/a.png") && !survey.read_time.is_zero(), "{survey:?}");
    assert_eq!(survey.classes, [("cats".to_owned(), Some(1)), ("dogs".to_owned(), Some(2))]);
    let formats: Vec<(&str, usize)> = survey.formats.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(formats, [("jpg", 1), ("png", 1)]);
    assert!(survey.damaged.is_some_and(|(count, first)| count == 1 && first.contains("c.jpg")));
}

#[test]
fn a_path_that_holds_no_pictures_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "words.txt", b"no picture");
    let told = |result: Result<DatasetConfig, Error>| match result {
        Ok(source) => source.survey().unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    for (name, words) in [("words.txt", "*.parquet"), ("nothing", "nothing"), ("", "none")] {
        let message = told(DatasetConfig::guess(&folder.path().join(name)));
        assert!(message.contains(words), "{name}: {message}");
    }
}

#[test]
fn wide_pictures_beside_square_ones_are_not_of_one_size() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.png", &encode(GrayImage::from_pixel(40, 40, Luma([90])), ImageFormat::Png));
    write(folder.path(), "b.png", &encode(GrayImage::from_pixel(80, 40, Luma([90])), ImageFormat::Png));
    let survey = DatasetConfig::guess(folder.path()).unwrap().survey().unwrap();
    assert_eq!((survey.sizes, survey.one_square_size()), ([[40, 40], [40, 80]], false));
}
