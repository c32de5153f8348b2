//! Trains from a configuration file: `train CONFIG OUT [--resume | --force] [a.b=value ...]`.
//!
//! The command `gmflow train` does the same with help texts; this is the library call on one page.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use burn::tensor::Device;
use gmflow_train::{Config, Lines, Result, Run, Summary};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, out, options @ ..] = arguments.as_slice() else {
        eprintln!("usage: train CONFIG OUT [--resume | --force] [a.b=value ...]");
        std::process::exit(2);
    };
    let flag = |name: &str| options.iter().any(|option| option == name);
    let overrides: Vec<String> = options.iter().filter(|option| option.contains('=')).cloned().collect();
    let (out, device) = (Path::new(out), Device::flex());
    let mut run = if flag("--resume") {
        Run::resume(out, &overrides, &device)?
    } else {
        Run::create(Config::load(Path::new(config), &overrides)?, out, flag("--force"), &device)?
    };
    eprintln!("{}", Summary::new(run.trainer(), "cpu", out)?);
    let samples = (run.trainer().config().train.batch_size, run.trainer().samples_are());
    run.run(&AtomicBool::new(false), &mut Lines::new(std::io::stderr(), samples, Duration::from_secs(30)))?;
    Ok(())
}
