//! Images per second through the loader: `throughput FOLDER WORKERS`, where the folder holds `mnist/` and `cifar10/`.

use std::path::PathBuf;
use std::time::Instant;

use gmflow_data::{DatasetConfig, ImageSettings, Loader, LoaderOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("usage: throughput FOLDER WORKERS")?);
    let workers: usize = match arguments.next() {
        Some(number) => number.to_str().ok_or("WORKERS: expected a number")?.parse()?,
        None => 2,
    };
    let image = ImageSettings::default;
    let mnist = DatasetConfig::Idx {
        images: "mnist/t10k-images-idx3-ubyte.gz".into(),
        labels: Some("mnist/t10k-labels-idx1-ubyte.gz".into()),
        image: image(),
        storage: Default::default(),
    };
    let cifar = |size| DatasetConfig::Parquet {
        path: "cifar10/test.parquet".into(),
        image_column: None,
        label_column: None,
        image: ImageSettings { size, ..image() },
        storage: Default::default(),
    };
    let sets = [("mnist", mnist, 4000), ("cifar10", cifar(None), 400), ("cifar10 at 64x64", cifar(Some(64)), 100)];
    for (name, config, batches) in sets {
        let start = Instant::now();
        let dataset = config.open(&folder)?;
        let opened = start.elapsed().as_secs_f64();
        let options = LoaderOptions { batch_size: 128, seed: 0, first_step: 0, workers, queue: 8 };
        let loader = Loader::start(dataset, options)?;
        let start = Instant::now();
        let mut images = 0;
        for batch in loader.take(batches) {
            images += batch?.labels.len();
        }
        let rate = images as f64 / start.elapsed().as_secs_f64();
        println!("{name}: opened in {opened:.2} s, {rate:.0} images/s on {workers} threads ({images} images)");
    }
    Ok(())
}
