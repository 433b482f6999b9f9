//! The graph in graphviz's language.

use std::fmt::Write as _;

use super::Graph;
use super::svg::level;
use crate::names::{cut, printable, short};
use crate::units;

/// The longest step that a node shows.
const STEP_WIDTH: usize = 40;
/// Fills from a layer with one user to one with many.
const FILLS: [&str; 5] = ["#f4f4f1", "#dbe7f6", "#b5cfee", "#86aee0", "#5b8fd0"];

/// Writes a graph, a node a layer, image or container.
pub(crate) fn dot(graph: &Graph) -> String {
    let mut out = String::from(
        "digraph layers {\n  rankdir=LR;\n  node [shape=box, style=\"filled,rounded\", \
         fontname=\"sans-serif\", fontsize=10, fillcolor=\"white\"];\n  edge [arrowsize=0.6];\n",
    );
    let mut line = |text: &str| {
        out.push_str("  ");
        out.push_str(text);
        out.push_str(";\n");
    };
    for layer in &graph.layers {
        let mut label = format!("{}  {}", short(&layer.diff_id), units::size(layer.size));
        if let Some(step) = &layer.step {
            let _ = write!(label, "\n{}", cut(&printable(step), STEP_WIDTH));
        }
        let fill = FILLS[level(layer.users)];
        let (id, label) = (quoted(&layer.chain_id), quoted(&label));
        let tip = quoted(&format!("{}\n{} users", layer.diff_id, layer.users));
        line(&format!("{id} [label={label}, tooltip={tip}, fillcolor=\"{fill}\"]"));
        if let Some(parent) = &layer.parent
            && graph.layers.iter().any(|layer| layer.chain_id == *parent)
        {
            line(&format!("{} -> {id}", quoted(parent)));
        }
    }
    for image in &graph.images {
        let names =
            if image.names.is_empty() { "<none>".to_owned() } else { image.names.join("\n") };
        let label = quoted(&format!("{names}\n{}  {}", short(&image.id), units::size(image.size)));
        let id = quoted(&format!("image {}", image.id));
        line(&format!("{id} [label={label}, shape=note, style=filled]"));
        if let Some(top) = &image.top {
            line(&format!("{} -> {id} [style=dashed]", quoted(top)));
        }
    }
    for container in &graph.containers {
        let id = quoted(&format!("container {}", container.id));
        let label = quoted(&format!("{}\n{}", container.name, container.state));
        line(&format!("{id} [label={label}, shape=component, style=filled]"));
        let image = quoted(&format!("image {}", container.image));
        line(&format!("{image} -> {id} [style=dashed]"));
    }
    out.push_str("}\n");
    out
}

/// A string of the language: quotes and backslashes are escaped, as are characters that are not to be
/// seen; lines are its own.
fn quoted(text: &str) -> String {
    let lines: Vec<_> = text
        .split('\n')
        .map(|line| printable(line).replace('\\', "\\\\").replace('"', "\\\""))
        .collect();
    format!("\"{}\"", lines.join("\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_end_where_they_should() {
        for (text, expected) in [
            ("plain", "\"plain\""),
            ("a\"];b", "\"a\\\"];b\""),
            ("a\\", "\"a\\\\\""),
            ("two\nlines", "\"two\\nlines\""),
            ("\u{202e}", "\"\\\\u{202e}\""),
        ] {
            assert_eq!(quoted(text), expected, "{text:?}");
        }
    }
}
