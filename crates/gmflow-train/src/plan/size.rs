//! The size that pictures are brought to.

use gmflow_data::Survey;

use super::NetworkSize;
use crate::{Error, Result};

/// Pictures are brought to this size where nothing else is asked for.
pub(super) const SIZE: usize = 32;
/// Images of one size up to this are left as they are.
const LARGEST_AS_THEY_ARE: usize = 64;
/// Images of fewer pixels to a side are not trained on.
const SMALLEST: usize = 8;

/// The size that pictures are brought to: what is asked for; small ones of one size as they are; or 32, or less where they are smaller.
pub(super) fn size(survey: &Survey, asked: Option<usize>) -> Result<usize> {
    let multiple = NetworkSize::MULTIPLE;
    if let Some(asked) = asked {
        let fits = asked >= SMALLEST && asked.is_multiple_of(multiple);
        let expected = format!("a multiple of {multiple} of at least {SMALLEST} pixels");
        return if fits { Ok(asked) } else { Err(Error::config("size", expected, asked)) };
    }
    let smallest = survey.smallest();
    let as_they_are =
        survey.one_square_size() && smallest <= LARGEST_AS_THEY_ARE && smallest.is_multiple_of(multiple);
    let size = if as_they_are { smallest } else { SIZE.min(smallest / multiple * multiple) };
    if size < SMALLEST {
        let [height, width] = survey.sizes[0];
        let got = format!("{}, which is {width}x{height}", survey.smallest_image);
        return Err(Error::config("data", format!("pictures of at least {SMALLEST} pixels to a side"), got));
    }
    Ok(size)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    /// Ten pictures without classes, from the smallest size to the largest.
    pub(in crate::plan) fn survey(sizes: [[usize; 2]; 2]) -> Survey {
        Survey {
            images: 10,
            classes: Vec::new(),
            looked_at: 10,
            sizes,
            smallest_image: "photos/icon.png".into(),
            read_time: Duration::ZERO,
            formats: BTreeMap::new(),
            grey: false,
            damaged: None,
        }
    }

    #[test]
    fn sizes_follow_the_pictures() {
        let of = |sizes, asked| size(&survey(sizes), asked).map_err(|error| error.to_string());
        assert_eq!(of([[28, 28], [28, 28]], None), Ok(28), "digits stay as they are");
        assert_eq!(of([[480, 640], [3000, 4000]], None), Ok(32), "photos");
        assert_eq!(of([[22, 30], [640, 480]], None), Ok(20), "nothing is made larger");
        assert_eq!(of([[480, 640], [480, 640]], Some(64)), Ok(64));
        assert!(
            of([[480, 640], [480, 640]], Some(30)).is_err_and(|error| error.contains("size: expected a multiple"))
        );
        assert!(
            of([[4, 9], [480, 640]], None).is_err_and(|error| error.contains("got photos/icon.png, which is 9x4"))
        );
    }
}
