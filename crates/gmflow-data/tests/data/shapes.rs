use gmflow_data::{
    Batches, DatasetConfig, FolderDataset, ImageDataset, ImageSettings, PictureFormat, Shapes, ShapesDataset,
    write_folder,
};

fn shapes(shapes: Shapes) -> ShapesDataset {
    ShapesDataset::new(shapes).unwrap()
}

fn small() -> Shapes {
    Shapes { size: 16, count: 12, ..Shapes::default() }
}

fn mean_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32
}

#[test]
fn a_picture_depends_on_seed_and_index_alone() {
    let set = shapes(small());
    let more = shapes(Shapes { count: 1000, ..small() });
    let other = shapes(Shapes { seed: 1, ..small() });
    for index in 0..set.len() {
        let image = set.get(index).unwrap();
        assert_eq!(image, more.get(index).unwrap());
        assert_eq!(image.label as usize, index % 6);
        assert!(image.pixels.iter().all(|value| (-1.0..=1.0).contains(value)));
        assert!(mean_difference(&image.pixels, &other.get(index).unwrap().pixels) > 0.05);
        assert!(mean_difference(&image.pixels, &more.get(index + 6).unwrap().pixels) > 0.05);
    }
    assert!(set.get(12).is_err());
    assert_eq!(set.class_names(), ["circle", "cross", "ring", "square", "star", "triangle"]);
    assert_eq!((set.shape(), shapes(Shapes { channels: 1, ..small() }).shape()), ([3, 16, 16], [1, 16, 16]));
}

/// The bytes are part of what a seed means: data that change would make runs differ that should not.
#[test]
fn the_bytes_are_the_recorded_ones() {
    let mut sum = flate2::Crc::new();
    for set in [Shapes { count: 60, ..Shapes::default() }, Shapes { channels: 1, seed: 7, ..small() }] {
        let set = shapes(set);
        for index in 0..set.len() {
            let bytes = set.get(index).unwrap().pixels.into_iter().map(|value| ((value + 1.0) * 127.5).round() as u8);
            sum.update(&bytes.collect::<Vec<u8>>());
        }
    }
    assert_eq!(sum.sum(), 2_927_953_794);
}

#[test]
fn grey_pictures_are_the_coloured_ones_without_colour() {
    let (colour, grey) = (shapes(small()), shapes(Shapes { channels: 1, ..small() }));
    for index in 0..6 {
        let [colour, grey] = [colour.get(index).unwrap().pixels, grey.get(index).unwrap().pixels];
        let [red, green, blue] = [0, 256, 512].map(|at| &colour[at..at + 256]);
        for at in 0..256 {
            let expected = 0.299 * red[at] + 0.587 * green[at] + 0.114 * blue[at];
            assert!((grey[at] - expected).abs() <= 1.01 / 255.0, "{} and {expected}", grey[at]);
        }
    }
}

#[test]
fn every_picture_shows_a_dark_figure_wholly_inside_a_light_background() {
    let set = shapes(Shapes { count: 300, ..Shapes::default() });
    for index in 0..set.len() {
        let pixels = set.get(index).unwrap().pixels;
        let darkest = |at: usize| [0, 1, 2].map(|c| pixels[c * 1024 + at]).into_iter().fold(1.0, f32::min);
        let edge = (0..32).flat_map(|i| [i, 31 * 32 + i, 32 * i, 32 * i + 31]);
        assert!(edge.map(darkest).all(|value| value > 0.2), "{index}: the figure touches the edge");
        let figure = (0..1024).filter(|&at| darkest(at) < -0.4).count();
        assert!((40..600).contains(&figure), "{index}: {figure} pixels of figure");
    }
}

#[test]
fn a_folder_of_png_files_holds_the_same_pictures() {
    let folder = tempfile::tempdir().unwrap();
    for channels in [1, 3] {
        let set = shapes(Shapes { channels, ..small() });
        let out = folder.path().join(format!("shapes-{channels}"));
        let mut files = 0;
        write_folder(&set, &out, PictureFormat::Png, &mut || files += 1).unwrap();
        assert_eq!(files, 12);
        let settings = ImageSettings { size: Some(16), channels: Some(channels), ..ImageSettings::default() };
        let read = FolderDataset::open(&out, &settings).unwrap();
        assert_eq!((read.class_names(), read.len()), (set.class_names(), 12));
        // Class by class rather than in turn.
        for index in 0..12 {
            assert_eq!(read.get(index % 6 * 2 + index / 6).unwrap(), set.get(index).unwrap());
        }
    }
}

#[test]
fn jpeg_files_are_close_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let (set, out) = (shapes(Shapes { size: 32, ..small() }), folder.path().join("photos"));
    write_folder(&set, &out, PictureFormat::Jpeg, &mut || ()).unwrap();
    assert!(out.join("star/04.jpg").is_file());
    let settings = ImageSettings { size: Some(32), ..ImageSettings::default() };
    let read = FolderDataset::open(&out, &settings).unwrap();
    for index in 0..6 {
        let (drawn, read) = (set.get(index).unwrap(), read.get(2 * index).unwrap());
        assert_eq!(drawn.label, read.label);
        assert!(mean_difference(&drawn.pixels, &read.pixels) < 0.05);
    }
    let error = write_folder(&set, &out, PictureFormat::Jpeg, &mut || ()).unwrap_err().to_string();
    assert!(error.contains("photos") && error.contains("new folder"), "{error}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing beside the folder");
}

#[test]
fn a_configuration_opens_them_as_batches() {
    let config: DatasetConfig = serde_json::from_str(r#"{"kind": "shapes", "size": 8, "count": 6}"#).unwrap();
    let dataset = config.open(".".as_ref()).unwrap();
    assert_eq!((dataset.shape(), dataset.len()), ([3, 8, 8], Some(6)));
    let batch = Batches::new(dataset, 6, 3).unwrap().batch(0).unwrap();
    let mut labels = batch.labels;
    labels.sort_unstable();
    assert_eq!(labels, [0, 1, 2, 3, 4, 5]);
}
