//! Reports on standard output: JSON, or lines by a template.

use std::io::Write;

use serde::Serialize;
use serde_json::Value;

use crate::names::printable;
use crate::template::Template;

/// Spaces between two columns.
const GAP: usize = 3;

/// Writes a report as JSON, for programs and people.
pub(crate) fn json(out: &mut impl Write, report: &impl Serialize) -> anyhow::Result<()> {
    // The error is kept an io error, so that a broken pipe is known as one.
    serde_json::to_writer_pretty(&mut *out, report).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Writes one line an object: aligned below a heading if the template is a table.
pub(crate) fn lines(
    out: &mut impl Write,
    template: &Template,
    headings: &[(&str, &str)],
    objects: &[Value],
) -> anyhow::Result<()> {
    let mut rendered = Vec::with_capacity(objects.len() + 1);
    if template.is_table() {
        rendered.push(template.heading(headings));
    }
    for object in objects {
        rendered.push(template.render(object)?);
    }
    if template.is_table() {
        table(out, &rendered)?;
    } else {
        for line in rendered {
            writeln!(out, "{line}")?;
        }
    }
    Ok(out.flush()?)
}

/// The widest column, in characters: what is longer moves the rest of its own line alone.
const WIDEST: usize = 80;

/// Aligns the tab-separated columns of lines.
fn table(out: &mut impl Write, lines: &[String]) -> std::io::Result<()> {
    let rows: Vec<Vec<String>> =
        lines.iter().map(|line| line.split('\t').map(printable).collect()).collect();
    let mut widths = Vec::new();
    for row in &rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count().min(WIDEST));
        }
    }
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let line: String = cells.map(|(cell, width)| format!("{cell:width$}{:GAP$}", "")).collect();
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(format: &str, objects: &[Value]) -> String {
        let template = Template::parse(format).expect("a good format");
        let mut out = Vec::new();
        lines(&mut out, &template, &[("A", "ALPHA")], objects).expect("rendering");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn columns_are_aligned_and_the_last_is_not_padded() {
        let objects =
            [json!({"A": "ü", "B": "x"}), json!({"A": "a\u{1b}longer", "B": "a long cell"})];
        assert_eq!(
            rendered("table {{.A}}\\t{{.B}}", &objects),
            "ALPHA           B\nü               x\na\\u{1b}longer   a long cell\n",
        );
        let long = "x".repeat(WIDEST + 1);
        let wide = [json!({"A": long, "B": ""}), json!({"A": "a", "B": "b"})];
        let expected = format!("{:83}B\n{long}\n{:83}b\n", "ALPHA", "a");
        assert_eq!(rendered("table {{.A}}\\t{{.B}}", &wide), expected, "one long cell");
        assert_eq!(rendered("table {{.A}}", &[]), "ALPHA\n", "a heading alone");
        assert_eq!(rendered("{{.B}}", &objects), "x\na long cell\n", "no heading");
    }
}
