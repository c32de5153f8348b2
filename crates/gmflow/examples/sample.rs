//! Samples from a trained model, its own settings where nothing else is asked for:
//!
//! ```text
//! cargo run --release --example sample -- models/mnist digits.png
//! cargo run --release --example sample -- Lakonik/gmflow_imagenet_k8_ema pictures.png
//! ```

use gmflow::checkpoint::Model;
use std::ops::ControlFlow;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, out] = arguments.as_slice() else {
        return Err("usage: sample MODEL OUT.png, where MODEL is a folder, a run or owner/name on the hub".into());
    };
    let model = Model::open(name)?;
    let samples = model.sampler().steps(6).seeds(0..16).sample_with(&mut |done, of| {
        eprintln!("{done} of {of} network calls");
        ControlFlow::Continue(()) // Break cancels.
    })?;
    samples.save_grid(out)?;
    println!("{out}: {} samples", samples.len());
    Ok(())
}
