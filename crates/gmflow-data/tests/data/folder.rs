use std::fs::{create_dir, write};

use gmflow_data::{Background, Error, FilesError, FolderDataset, Image, ImageDataset, ImageSettings};
use image::{GrayImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, RgbImage, Rgba, RgbaImage};
use tempfile::TempDir;

use crate::common::{encode, raw_png};

fn settings(size: usize, channels: usize) -> ImageSettings {
    ImageSettings { size: Some(size), channels: Some(channels), ..ImageSettings::default() }
}

/// One image through a folder without classes.
fn read(name: &str, bytes: &[u8], settings: &ImageSettings) -> gmflow_data::Result<Image> {
    let folder = TempDir::new().unwrap();
    write(folder.path().join(name), bytes).unwrap();
    FolderDataset::open(folder.path(), settings)?.get(0)
}

fn close(got: &[f32], want: &[f32], tolerance: f32) {
    let within = got.len() == want.len() && got.iter().zip(want).all(|(got, want)| (got - want).abs() <= tolerance);
    assert!(within, "{got:?} {want:?}");
}

/// Left column black, right column white.
fn halves(width: u32, height: u32) -> GrayImage {
    GrayImage::from_fn(width, height, |x, _| Luma([if x < width / 2 { 0 } else { 255 }]))
}

#[test]
fn subfolders_are_classes_in_order_at_any_depth() {
    let folder = TempDir::new().unwrap();
    let image = encode(halves(4, 4), ImageFormat::Png);
    for class in ["b", "a", "c", ".hidden", "a/deeper"] {
        create_dir(folder.path().join(class))
            .or_else(|_| std::fs::create_dir_all(folder.path().join(class)))
            .unwrap();
    }
    for file in ["b/1.PNG", "a/2.png", "a/10.png", "a/deeper/3.jpeg", "a/._2.png", "a/notes.txt", ".hidden/1.png"] {
        write(folder.path().join(file), &image).unwrap();
    }
    let set = FolderDataset::open(folder.path(), &settings(4, 1)).unwrap();
    assert_eq!(set.class_names(), ["a", "b", "c"]);
    assert_eq!(set.len(), 4);
    let labels: Vec<u32> = (0..4).map(|index| set.get(index).unwrap().label).collect();
    assert_eq!(labels, [0, 0, 0, 1]);
    assert!(matches!(set.get(4), Err(Error::Files(FilesError::Config { .. }))));
    write(folder.path().join("loose.png"), &image).unwrap();
    assert!(FolderDataset::open(folder.path(), &settings(4, 1)).unwrap_err().to_string().contains("loose.png"));
}

#[test]
fn folders_without_images_or_size_are_refused() {
    let folder = TempDir::new().unwrap();
    assert!(matches!(
        FolderDataset::open(folder.path(), &settings(4, 1)),
        Err(Error::Files(FilesError::File { .. }))
    ));
    let error = FolderDataset::open(folder.path(), &ImageSettings::default()).unwrap_err().to_string();
    assert!(error.starts_with("image.size"), "{error}");
    let missing = folder.path().join("missing");
    assert!(matches!(FolderDataset::open(&missing, &settings(4, 1)), Err(Error::Files(FilesError::Io { .. }))));
}

#[test]
fn colours_land_in_planes() {
    let image = RgbImage::from_pixel(2, 2, Rgb([255, 0, 51]));
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        let got = read("x.png", &encode(image.clone(), format), &settings(2, 3)).unwrap();
        close(&got.pixels, &[1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -0.6, -0.6, -0.6, -0.6], 1e-6);
    }
    let jpeg = read("x.jpg", &encode(image, ImageFormat::Jpeg), &settings(2, 3)).unwrap();
    close(&jpeg.pixels, &[1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -0.6, -0.6, -0.6, -0.6], 0.06);
    let grey = read("x.png", &encode(halves(2, 1), ImageFormat::Png), &settings(1, 3)).unwrap();
    assert_eq!(grey.pixels.len(), 3);
}

#[test]
fn sixteen_bits_are_kept() {
    let image = ImageBuffer::<Luma<u16>, _>::from_pixel(2, 2, Luma([12345]));
    let got = read("x.png", &encode(image, ImageFormat::Png), &settings(2, 1)).unwrap();
    close(&got.pixels, &[2.0 * 12345.0 / 65535.0 - 1.0; 4], 1e-6);
}

#[test]
fn palettes_and_single_bits_are_read() {
    let palette = [255, 0, 0, 0, 255, 0];
    let file = raw_png(2, 1, 8, 3, &palette, &[0, 0, 1]);
    let got = read("x.png", &file, &ImageSettings { channels: Some(3), ..settings(1, 3) }).unwrap();
    assert_eq!(got.pixels.len(), 3);
    let bits = raw_png(2, 2, 1, 0, &[], &[0, 0b0100_0000, 0, 0b1000_0000]);
    close(&read("x.png", &bits, &settings(2, 1)).unwrap().pixels, &[-1.0, 1.0, 1.0, -1.0], 1e-6);
}

#[test]
fn transparency_shows_the_background() {
    let image = RgbaImage::from_fn(2, 2, |x, _| Rgba([0, 0, 255, if x == 0 { 0 } else { 255 }]));
    let file = encode(image, ImageFormat::Png);
    let mut on = settings(2, 3);
    close(&read("x.png", &file, &on).unwrap().pixels[..4], &[1.0, -1.0, 1.0, -1.0], 1e-6);
    on.background = Background::Black;
    close(&read("x.png", &file, &on).unwrap().pixels[..4], &[-1.0; 4], 1e-6);
    let half = ImageBuffer::from_pixel(1, 1, LumaA([255u8, 51]));
    let black = ImageSettings { background: Background::Black, ..settings(1, 1) };
    close(&read("x.png", &encode(half, ImageFormat::Png), &black).unwrap().pixels, &[-0.6], 1e-2);
}

#[test]
fn the_centre_is_cut_out_and_resized() {
    // 8x4: the central 4x4 keeps the edge in the middle, with no resampling.
    let wide = read("x.png", &encode(halves(8, 4), ImageFormat::Png), &settings(4, 1)).unwrap();
    close(&wide.pixels, &[-1.0, -1.0, 1.0, 1.0].repeat(4), 0.0);
    let tall = read("x.png", &encode(halves(4, 9), ImageFormat::Png), &settings(4, 1)).unwrap();
    close(&tall.pixels, &[-1.0, -1.0, 1.0, 1.0].repeat(4), 0.0);
    // Alternating columns average out when reduced: a filter that does not widen would alias them.
    let comb = GrayImage::from_fn(64, 64, |x, _| Luma([if x % 2 == 0 { 0 } else { 255 }]));
    let small = read("x.png", &encode(comb, ImageFormat::Png), &settings(8, 1)).unwrap();
    close(&small.pixels, &[0.0; 64], 0.06);
    for (width, height) in [(1, 1), (1, 50), (37, 2), (3, 5)] {
        let odd = read("x.png", &encode(halves(width, height), ImageFormat::Png), &settings(5, 1)).unwrap();
        assert_eq!(odd.pixels.len(), 25);
        assert!(odd.pixels.iter().all(|value| (-1.0..=1.0).contains(value)));
    }
}

#[test]
fn the_orientation_tag_is_applied() {
    let plain = encode(halves(16, 16), ImageFormat::Jpeg);
    // Orientation 6: to be turned clockwise by a quarter, so the left half comes to lie above.
    let mut tag = vec![0xff, 0xe1, 0, 34];
    tag.extend(b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0");
    let turned = [&plain[..2], &tag, &plain[2..]].concat();
    let got = read("x.jpg", &turned, &settings(16, 1)).unwrap().pixels;
    close(&got[..16], &[-1.0; 16], 0.1);
    close(&got[240..], &[1.0; 16], 0.1);
}

#[test]
fn truncated_files_of_every_format_are_refused_by_name() {
    let image = RgbImage::from_fn(64, 64, |x, y| Rgb([(x * y % 251) as u8, (x * 3) as u8, (y * 5 % 256) as u8]));
    for (name, format) in [("x.png", ImageFormat::Png), ("x.jpg", ImageFormat::Jpeg), ("x.webp", ImageFormat::WebP)] {
        let file = encode(image.clone(), format);
        read(name, &file, &settings(8, 3)).unwrap();
        for cut in [0, 1, 4, 20, file.len() / 2, file.len() * 9 / 10] {
            let error = read(name, &file[..cut], &settings(8, 3)).expect_err(&format!("{name} cut to {cut}"));
            assert!(
                matches!(error, Error::Files(FilesError::File { .. })) && error.to_string().contains(name),
                "{error}"
            );
        }
    }
}

#[test]
fn any_flipped_byte_is_read_or_refused() {
    let image = RgbImage::from_fn(16, 16, |x, y| Rgb([(x * y) as u8, (x * 3) as u8, (y * 5) as u8]));
    for (name, format) in [("x.png", ImageFormat::Png), ("x.jpg", ImageFormat::Jpeg), ("x.webp", ImageFormat::WebP)] {
        let file = encode(image.clone(), format);
        for at in (0..file.len()).step_by(3) {
            let mut damaged = file.clone();
            damaged[at] ^= 0x55;
            if let Ok(image) = read(name, &damaged, &settings(8, 3)) {
                assert!(image.pixels.len() == 192 && image.pixels.iter().all(|value| value.abs() <= 1.0));
            }
        }
    }
}

#[test]
fn impossible_sizes_are_refused_before_memory_is_taken() {
    for (width, height) in [(0, 4), (4, 0), (100_000, 100_000), (i32::MAX as u32, i32::MAX as u32)] {
        let error = read("x.png", &raw_png(width, height, 8, 2, &[], &[0; 64]), &settings(8, 3)).unwrap_err();
        assert!(matches!(error, Error::Files(FilesError::File { .. })), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn names_need_not_be_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = TempDir::new().unwrap();
    let class = folder.path().join(OsStr::from_bytes(b"caf\xe9"));
    create_dir(&class).unwrap();
    write(class.join(OsStr::from_bytes(b"\xff\xfe.png")), encode(halves(4, 4), ImageFormat::Png)).unwrap();
    let set = FolderDataset::open(folder.path(), &settings(4, 1)).unwrap();
    assert_eq!(set.class_names(), ["caf\u{fffd}"]);
    assert_eq!(set.get(0).unwrap().pixels.len(), 16);
}

#[test]
fn grey_of_colour_is_that_of_pillow() {
    // What Pillow 12 gives for `convert("L")`.
    let known = [
        ([255, 0, 0], 76),
        ([0, 255, 0], 150),
        ([0, 0, 255], 29),
        ([1, 2, 3], 2),
        ([200, 100, 50], 124),
        ([254, 255, 253], 254),
        ([13, 77, 201], 72),
        ([90, 91, 92], 91),
        ([128, 127, 129], 128),
        ([250, 3, 180], 97),
    ];
    for (rgb, grey) in known {
        let image = encode(RgbImage::from_pixel(2, 2, Rgb(rgb)), ImageFormat::Png);
        let got = read("x.png", &image, &settings(2, 1)).unwrap().pixels[0];
        assert_eq!(((got + 1.0) * 127.5).round() as u8, grey, "{rgb:?}");
    }
    // The same weights with 16 bits: 0.299 of 65535, and so on.
    let deep = ImageBuffer::<Rgb<u16>, _>::from_pixel(2, 2, Rgb([65_535, 30_000, 1_000]));
    let got = read("x.png", &encode(deep, ImageFormat::Png), &settings(2, 1)).unwrap().pixels;
    close(&got, &[2.0 * (0.299 + (0.587 * 30_000.0 + 0.114 * 1_000.0) / 65_535.0) - 1.0; 4], 1e-6);
}

#[test]
fn the_content_tells_the_format() {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Pnm, Tiff, WebP};
    let folder = TempDir::new().unwrap();
    let image = |format| encode(RgbImage::from_pixel(4, 4, Rgb([200, 10, 60])), format);
    let files = [
        ("a.png", Png),
        ("b.JPG", Jpeg),
        ("c.jpeg", Jpeg),
        ("d.jpe", Jpeg),
        ("e.jfif", Jpeg),
        ("f.bmp", Bmp),
        ("g.tif", Tiff),
        ("h.tiff", Tiff),
        ("i.gif", Gif),
        ("j.webp", WebP),
        ("k.ppm", Pnm),
        // The name says something else, or nothing.
        ("l.png", Bmp),
        ("m.HEIC", Jpeg),
        ("n", Png),
        ("o.jpg_large", Jpeg),
    ];
    for (name, format) in files {
        write(folder.path().join(name), image(format)).unwrap();
    }
    for (name, bytes) in [
        ("notes.txt", &b"a note"[..]),
        ("p.heic", b"\0\0\0\x20ftypheic\0\0\0\0mif1"),
        ("q.svg", b"<svg xmlns='http://www.w3.org/2000/svg'></svg>"),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0"),
        ("._a.png", b"\0\x05\x16\x07"),
        ("r.dng", b"II*\0\x08\0\0\0"),
    ] {
        write(folder.path().join(name), bytes).unwrap();
    }
    create_dir(folder.path().join("__MACOSX")).unwrap();
    let set = FolderDataset::open(folder.path(), &settings(4, 3)).unwrap();
    assert_eq!(set.len(), files.len());
    let expected = [[200u8; 16], [10; 16], [60; 16]].concat();
    for (index, (name, _)) in files.iter().enumerate() {
        let pixels = set.get(index).unwrap().pixels;
        let bytes = pixels.iter().map(|value| (value + 1.0) * 127.5);
        let near = bytes.zip(&expected).all(|(got, want)| (got - f32::from(*want)).abs() < 3.0);
        assert!(near, "{name}: {pixels:?}");
    }
}

#[test]
fn what_stands_in_place_of_an_image_is_named() {
    for (bytes, what) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"[..], "a Git LFS pointer"),
        (b"<html><body>403</body></html>", "an HTML page"),
        (b"", "an empty file"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "an AVIF image"),
        (b"P12 is a text", "a text file"),
    ] {
        let error = read("x.png", bytes, &settings(4, 3)).unwrap_err();
        let text = error.to_string();
        assert!(error.is_corrupt() && text.contains("x.png") && text.contains(what), "{text}");
    }
}

#[test]
fn a_folder_with_nothing_to_read_says_what_it_holds() {
    let folder = TempDir::new().unwrap();
    write(folder.path().join("a.heic"), b"\0\0\0\x20ftypheic\0\0\0\0mif1").unwrap();
    write(folder.path().join("b.txt"), b"a note").unwrap();
    let text = FolderDataset::open(folder.path(), &settings(4, 3)).unwrap_err().to_string();
    assert!(text.contains("none, but 1 .heic (an HEIC image), 1 .txt"), "{text}");
}

#[test]
fn classes_without_images_are_counted_as_such() {
    let folder = TempDir::new().unwrap();
    for class in ["a", "b", "c"] {
        create_dir(folder.path().join(class)).unwrap();
    }
    let image = encode(halves(4, 4), ImageFormat::Png);
    for file in ["a/1.png", "c/1.png", "c/2.png"] {
        write(folder.path().join(file), &image).unwrap();
    }
    let set = FolderDataset::open(folder.path(), &settings(4, 1)).unwrap();
    assert_eq!((set.class_names().len(), set.class_images()), (3, Some(vec![1, 0, 2])));
}

#[test]
fn a_changed_folder_has_another_fingerprint() {
    let folder = TempDir::new().unwrap();
    create_dir(folder.path().join("a")).unwrap();
    let image = encode(halves(4, 4), ImageFormat::Png);
    write(folder.path().join("a/1.png"), &image).unwrap();
    let of = |settings: &ImageSettings| FolderDataset::open(folder.path(), settings).unwrap().fingerprint().unwrap();
    let (before, settings) = (of(&settings(4, 1)), settings(4, 1));
    assert_eq!(before, of(&settings));
    // Where the folder lies does not count.
    let moved = TempDir::new().unwrap();
    std::fs::rename(folder.path().join("a"), moved.path().join("a")).unwrap();
    assert_eq!(FolderDataset::open(moved.path(), &settings).unwrap().fingerprint().unwrap(), before);
    std::fs::rename(moved.path().join("a"), folder.path().join("a")).unwrap();
    let changed = |now: gmflow_data::Fingerprint| before.changes(&now);
    assert_eq!(
        changed(of(&ImageSettings { size: Some(2), ..settings.clone() })).unwrap().matches("before").count(),
        1
    );
    write(folder.path().join("a/1.png"), [image.clone(), vec![0]].concat()).unwrap();
    assert!(changed(of(&settings)).unwrap().contains("other files, sizes or contents"));
    write(folder.path().join("a/2.png"), &image).unwrap();
    assert_eq!(changed(of(&settings)).unwrap(), "2 images, 1 before; a has 2, 1 before");
}

#[test]
fn the_limit_of_pixels_can_be_set() {
    let image = encode(halves(20, 10), ImageFormat::Png);
    let limit = |pixels| ImageSettings { max_pixels: Some(pixels), ..settings(4, 1) };
    read("x.png", &image, &limit(200)).unwrap();
    let error = read("x.png", &image, &limit(199)).unwrap_err();
    assert!(
        error.is_corrupt() && error.to_string().contains("1 to 199 pixels (image.max_pixels), got 20x10"),
        "{error}"
    );
    assert!(limit(0).validate().unwrap_err().to_string().starts_with("image.max_pixels"));
    // By default what cameras make is allowed: a header of 12,000 x 9,000 fails for its pixels, which are not there, not for its size.
    let error = read("x.png", &raw_png(12_000, 9_000, 8, 2, &[], &[0; 64]), &settings(4, 1)).unwrap_err().to_string();
    assert!(error.contains("a valid PNG image"), "{error}");
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_are_named() {
    let folder = TempDir::new().unwrap();
    write(folder.path().join("a.png"), encode(halves(4, 4), ImageFormat::Png)).unwrap();
    std::os::unix::fs::symlink("gone.png", folder.path().join("b.png")).unwrap();
    let error = FolderDataset::open(folder.path(), &settings(4, 1)).unwrap_err();
    assert!(matches!(error, Error::Files(FilesError::Io { .. })) && error.to_string().contains("b.png"), "{error}");
}

#[test]
fn training_runs_are_no_data() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    for run in ["runs/old/samples", "red/run/samples"] {
        std::fs::create_dir_all(path(run)).unwrap();
    }
    let image = encode(halves(4, 4), ImageFormat::Png);
    for file in ["red/1.png", "runs/old/samples/step-00000001.png", "red/run/samples/step-00000001.png"] {
        write(path(file), &image).unwrap();
    }
    for run in ["runs/old", "red/run"] {
        write(path(run).join("run.manifest"), "gmflow-run 1\n").unwrap();
    }
    let set = FolderDataset::open(folder.path(), &settings(4, 1)).unwrap();
    assert_eq!((set.class_names(), set.len()), (&["red".to_owned()][..], 1));
    // Pictures beside the folder of runs have no classes.
    let flat = FolderDataset::open(&path("red"), &settings(4, 1)).unwrap();
    assert_eq!((flat.class_names().len(), flat.len()), (0, 1));
    let refused = |name: &str| FolderDataset::open(&path(name), &settings(4, 1)).unwrap_err().to_string();
    assert!(refused("runs/old").contains("runs/old: folder: expected a folder of pictures, got the folder of a"));
    assert!(refused("runs").contains("got none, but 1 folder of training runs"), "{}", refused("runs"));
}

#[cfg(unix)]
#[test]
fn pipes_are_passed_over_and_a_picture_that_becomes_one_is_an_error() {
    let folder = TempDir::new().unwrap();
    let pipe = |name: &str| {
        let made = std::process::Command::new("mkfifo").arg(folder.path().join(name)).status().unwrap();
        assert!(made.success());
    };
    write(folder.path().join("a.png"), encode(halves(4, 4), ImageFormat::Png)).unwrap();
    pipe("b.png");
    let set = FolderDataset::open(folder.path(), &settings(4, 1)).unwrap();
    assert_eq!(set.len(), 1);
    std::fs::remove_file(folder.path().join("a.png")).unwrap();
    pipe("a.png");
    let error = set.get(0).unwrap_err();
    assert!(
        error.is_corrupt() && error.to_string().contains("a.png: kind: expected a file, got a named pipe"),
        "{error}"
    );
    for name in ["x-idx3-ubyte", "x.parquet"] {
        pipe(name);
        let error = gmflow_data::DatasetConfig::guess(&folder.path().join(name)).unwrap().survey().unwrap_err();
        assert!(error.to_string().contains("expected a file, got a named pipe"), "{error}");
    }
}

#[test]
fn pictures_in_formats_that_are_not_read_are_to_be_converted() {
    let folder = TempDir::new().unwrap();
    let heic = b"\0\0\0\x20ftypheic\0\0\0\0mif1";
    write(folder.path().join("a.heic"), heic).unwrap();
    let text = FolderDataset::open(folder.path(), &settings(4, 3)).unwrap_err().to_string();
    assert!(text.ends_with("1 .heic (an HEIC image); convert those to JPEG or PNG to use them"), "{text}");
    let text = read("x.jpg", heic, &settings(4, 3)).unwrap_err().to_string();
    assert!(text.ends_with("got an HEIC image (convert it to JPEG or PNG)"), "{text}");
}
