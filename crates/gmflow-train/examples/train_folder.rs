//! From a folder of pictures, one subfolder for each class, to a trained model and a picture of its samples:
//!
//! ```text
//! cargo run --release --example train_folder -- PHOTOS OUT 30
//! ```
//!
//! trains for about 30 minutes. `gmflow train PHOTOS --minutes 30` does the same with more words.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use burn::tensor::Device;
use gmflow::checkpoint::Model;
use gmflow_train::plan::{Plan, PlanOptions};
use gmflow_train::{Lines, Run};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [photos, out, minutes] = arguments.as_slice() else {
        return Err("usage: train_folder PHOTOS OUT MINUTES".into());
    };
    let (out, device) = (Path::new(out), Device::flex());

    // What to train follows from the pictures, the machine and the time: the size, the network, the number of steps.
    let options =
        PlanOptions { budget: Some(Duration::from_secs(60 * minutes.parse::<u64>()?)), ..Default::default() };
    let plan = Plan::new(Path::new(photos), &options, &device, &mut |next| println!("{next}"))?;
    println!("{}", plan.words());

    // The run keeps its configuration, checkpoints and logs in its folder; `Run::resume` goes on after an interruption.
    let mut run = Run::create(plan.config(&[])?, out, false, &device)?;
    let samples = (run.trainer().config().train.batch_size, run.trainer().samples_are());
    run.run(&AtomicBool::new(false), &mut Lines::new(std::io::stderr(), samples, Duration::from_secs(30)))?;

    // The run is a model, too: that of its last checkpoint.
    let grid = out.join("grid.png");
    Model::open(out)?.sampler().seeds(0..36).sample()?.save_grid(&grid)?;
    println!("36 samples in {}", grid.display());
    Ok(())
}
