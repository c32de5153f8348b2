//! `gmflow init`: a configuration for a set of pictures.

use crate::args::{InitArgs, PlanArgs};
use crate::device::device;
use crate::{local, output, terminal};
use anyhow::Result;
use gmflow::checkpoint::write_atomic;
use gmflow_data::{DatasetConfig, absolute};
use gmflow_train::Error as Train;
use gmflow_train::plan::{Plan, PlanOptions};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// Runs the command.
pub fn run(arguments: &InitArgs) -> Result<()> {
    let out = arguments.out.clone().unwrap_or_else(|| Plan::name(&arguments.data).with_extension("toml"));
    output::expect_file(&out)?;
    output::refuse_existing([out.as_path()], arguments.overwrite.force)?;
    local::expect([arguments.data.as_path()])?;
    Plan::check(&DatasetConfig::guess(&arguments.data)?, &arguments.plan.options(&[]))?;
    let plan = plan(&arguments.data, &arguments.plan, &[], &arguments.device.name)?;
    let seen_from = seen_from(&plan.source, &out)?;
    output::create_parent(&out)?;
    write_atomic(&out, plan.toml(Some(&seen_from))?.as_bytes())?;
    if arguments.outcome.json {
        let [first, all] = plan.expected().map(|time| time.as_secs_f64());
        let classes: Vec<_> =
            plan.survey.classes.iter().map(|(name, count)| json!({"name": name, "images": count})).collect();
        return output::json(&json!({
            "out": out, "images": plan.survey.images, "classes": classes, "size": plan.size, "channels": plan.channels,
            "network": plan.network.name(), "steps": plan.steps, "step_seconds": plan.step_time.as_secs_f64(),
            "recognisable_seconds": first, "seconds": all,
        }));
    }
    output::line(&plan.words())?;
    output::line(&format!("written   {}\nnext      gmflow train {}", out.display(), output::shell_word(&out)))
}

/// Looks at the data, chooses and times a few steps, with `settings` of --set, and with word of what takes some seconds.
pub fn plan(data: &Path, options: &PlanArgs, settings: &[String], device_name: &str) -> Result<Plan> {
    let device = device(device_name)?;
    Plan::new(data, &options.options(settings), &device, &mut terminal::say).map_err(|error| match error {
        // The batch of a plan is no option of it; where --set changes it, the advice to lower it stands.
        Train::Gmflow(gmflow::Error::Memory { field, got, need, there, .. }) if settings.is_empty() => {
            let advice = "take a smaller --size or --network".to_owned();
            gmflow::Error::Memory { field, got, need, there, advice }.into()
        }
        other => other.into(),
    })
}

impl PlanArgs {
    /// The same for the library, with settings of --set.
    pub fn options(&self, settings: &[String]) -> PlanOptions {
        PlanOptions {
            size: self.size,
            budget: self.minutes.map(|minutes| Duration::from_secs(60 * minutes)),
            steps: self.steps,
            network: self.network,
            overrides: settings.to_vec(),
        }
    }

    /// The first option that is given, by its name.
    pub fn given(&self) -> Option<&'static str> {
        let given = [
            ("--size", self.size.is_some()),
            ("--minutes", self.minutes.is_some()),
            ("--steps", self.steps.is_some()),
            ("--network", self.network.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }
}

/// The data set with paths that hold from the folder of `file`: as they are where that is the working directory, otherwise from the root.
fn seen_from(source: &DatasetConfig, file: &Path) -> Result<DatasetConfig> {
    let mut source = source.clone();
    let here = file.parent().is_none_or(|folder| folder.as_os_str().is_empty());
    for (_, path) in source.paths_mut() {
        if !here && path.is_relative() {
            *path = absolute(path);
        }
    }
    Ok(source)
}
