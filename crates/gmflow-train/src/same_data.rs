//! Whether the data is what a checkpoint or a model was trained on.

use gmflow::checkpoint::{ModelInfo, TrainedOn};
use gmflow_data::Fingerprint;

use crate::source::SourceInfo;
use crate::{Error, Result};

/// What a model keeps of its data.
pub(crate) fn trained_on(info: &SourceInfo, has_classes: bool) -> Option<TrainedOn> {
    let class_images = info.class_images.clone().filter(|_| has_classes).unwrap_or_default();
    // A fingerprint is made of numbers and texts, which JSON can hold.
    let fingerprint = info.fingerprint.as_ref().and_then(|fingerprint| serde_json::to_value(fingerprint).ok());
    (!class_images.is_empty() || fingerprint.is_some()).then_some(TrainedOn { class_images, fingerprint })
}

/// Refuses to continue a checkpoint on changed data, and adds to `info` what the checkpoint knows of its classes.
///
/// With `accept`, other images are accepted, and classes that were added behind the others or removed from the end; what was learnt of a
/// number must not come to count for another class.
///
/// # Errors
/// [`Error::Config`] that names what changed.
pub(crate) fn check_resumed(stored: &ModelInfo, info: &mut SourceInfo, accept: bool) -> Result<()> {
    if let (Some(before), Some(now)) = (&stored.classes, &info.classes) {
        refuse_moved(before, now, "the checkpoint's")?;
    }
    let Some(now) = &info.fingerprint else { return Ok(()) };
    let before = stored.trained_on.as_ref().and_then(|on| on.fingerprint.clone());
    let before: Option<Fingerprint> = before.and_then(|before| serde_json::from_value(before).ok());
    let Some(before) = before else {
        log::warn!(
            "the checkpoint does not say what data it was trained on: it cannot be compared with the data now"
        );
        return Ok(());
    };
    match before.changes(now) {
        None => {}
        Some(changes) if accept => log::warn!("the run goes on with changed data: {changes}"),
        Some(changes) => {
            let expected =
                "the data that the run was trained on (--accept-changed-data goes on with what is there now)";
            return Err(Error::config("data.source", expected, format!("other data: {changes}")));
        }
    }
    // A class that had images once has been learnt, also where an earlier call accepted that they are gone.
    let earlier = stored.trained_on.iter().flat_map(|on| &on.class_images);
    for (count, before) in info.class_images.iter_mut().flatten().zip(earlier) {
        *count = (*count).max(*before);
    }
    Ok(())
}

/// Refuses data whose classes are other ones than those of the model that training starts from.
///
/// # Errors
/// [`Error::Config`] that names the first class that differs.
pub(crate) fn check_started_from(model: &ModelInfo, info: &SourceInfo) -> Result<()> {
    let (Some(before), Some(now)) = (&model.classes, &info.classes) else { return Ok(()) };
    let moved = refuse_moved(before, now, "the model's");
    moved.map_err(|error| match error {
        Error::Config { source_name, field, expected, got } => {
            let expected =
                format!("{expected} (train.new_classes, or --new-classes, trains the model on other classes)");
            Error::Config { source_name, field, expected, got }
        }
        other => other,
    })
}

/// Refuses classes of which one has the number of another one before.
fn refuse_moved(before: &[String], now: &[String], whose: &str) -> Result<()> {
    match before.iter().zip(now).position(|(before, now)| before != now) {
        None => Ok(()),
        Some(class) => {
            let name = |names: &[String]| names.get(class).cloned().unwrap_or_default();
            let expected = format!("the classes in {whose} order, in which class {class} is {:?}", name(before));
            let others = |of: &[String], within: &[String]| -> Vec<String> {
                of.iter().filter(|name| !within.contains(name)).take(5).cloned().collect()
            };
            let (added, removed) = (others(now, before), others(before, now));
            let mut got = format!("{:?}", name(now));
            for (names, what) in [(added, "added"), (removed, "removed")] {
                if !names.is_empty() {
                    got = format!("{got}; {what}: {}", names.join(", "));
                }
            }
            Err(Error::config("data.source", expected, got))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn classes_may_be_added_behind_the_others_and_removed_from_the_end() {
        let before = names(&["dog", "fox"]);
        for now in [&["dog", "fox"][..], &["dog"], &["dog", "fox", "hen"]] {
            refuse_moved(&before, &names(now), "the checkpoint's").unwrap();
        }
        let text = refuse_moved(&before, &names(&["cat", "dog", "fox"]), "the checkpoint's").unwrap_err().to_string();
        assert!(text.contains("class 0 is \"dog\"") && text.contains("got \"cat\"; added: cat"), "{text}");
        let text = refuse_moved(&before, &names(&["fox"]), "the checkpoint's").unwrap_err().to_string();
        assert!(text.contains("removed: dog"), "{text}");
    }
}
