//! The steps of a build: which made which layer.

use image::ImageConfig;
use serde::Serialize;

/// One step of a build, from the image config's history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    /// The layer that it made, 1 at the bottom; none for a step that made none, and where the history
    /// has another number of layers than the image.
    pub(crate) layer: Option<usize>,
    /// When, RFC 3339.
    pub(crate) created: Option<String>,
    /// The command as it was recorded.
    pub(crate) created_by: String,
    /// A remark.
    pub(crate) comment: Option<String>,
    /// Whether it made no layer.
    pub(crate) empty: bool,
}

/// The steps of an image with this many layers, the first first.
pub(crate) fn steps(config: &ImageConfig, layers: usize) -> Vec<Step> {
    let made = config.history.iter().filter(|step| !step.empty_layer).count();
    let mut layer = 0;
    let step = |step: &image::History| {
        layer += usize::from(!step.empty_layer);
        let known = !step.empty_layer && made <= layers;
        Step {
            layer: known.then_some(layer),
            created: step.created.clone(),
            created_by: step.created_by.clone().unwrap_or_default(),
            comment: step.comment.clone().filter(|comment| !comment.is_empty()),
            empty: step.empty_layer,
        }
    };
    config.history.iter().map(step).collect()
}

/// A step as a Dockerfile writes it, on one line.
pub(crate) fn short_step(created_by: &str) -> String {
    let text = created_by.trim().trim_end_matches("# buildkit").trim_end();
    let text = match text.strip_prefix("/bin/sh -c #(nop)") {
        Some(instruction) => instruction.trim_start().to_owned(),
        None => match text.strip_prefix("/bin/sh -c ") {
            Some(command) => format!("RUN {}", command.trim_start()),
            None => text.replacen("RUN /bin/sh -c ", "RUN ", 1),
        },
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use image::History;

    use super::*;

    #[test]
    fn steps_are_written_as_in_a_dockerfile() {
        for (recorded, expected) in [
            ("/bin/sh -c #(nop) ADD file:ab in / ", "ADD file:ab in /"),
            ("/bin/sh -c #(nop)  CMD [\"bash\"]", "CMD [\"bash\"]"),
            ("/bin/sh -c apt-get update   &&\tapt-get x", "RUN apt-get update && apt-get x"),
            ("RUN /bin/sh -c make # buildkit", "RUN make"),
            ("COPY a b # buildkit", "COPY a b"),
            ("", ""),
        ] {
            assert_eq!(short_step(recorded), expected, "{recorded:?}");
        }
    }

    #[test]
    fn steps_are_told_the_layers_that_they_made() {
        let history = |empty| History { empty_layer: empty, ..History::default() };
        let config = |steps: &[bool]| ImageConfig {
            history: steps.iter().map(|empty| history(*empty)).collect(),
            ..ImageConfig::default()
        };
        for (what, history, layers, expected) in [
            ("one each", &[false, true, false][..], 2, &[Some(1), None, Some(2)][..]),
            ("a container's changes on top", &[false], 2, &[Some(1)]),
            ("too many steps", &[false, false], 1, &[None, None]),
            ("no history", &[], 3, &[]),
        ] {
            let found: Vec<_> =
                steps(&config(history), layers).iter().map(|step| step.layer).collect();
            assert_eq!(found, expected, "{what}");
        }
    }
}
