//! The part of Go's templates that `--format` users write: `{{.Field}}`, `{{.A.B}}`, `{{json .}}`,
//! `{{upper .Field}}`, `\t` and `\n`, and docker's `table` prefix.

use std::fmt::Write as _;

use serde_json::Value;

use crate::exit::usage;

/// A parsed `--format`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Template {
    table: bool,
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field { function: Function, path: Vec<String> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Plain,
    Json,
    Upper,
    Lower,
}

impl Template {
    /// Parses a format; `json` alone is short for `{{json .}}`, as with docker.
    pub(crate) fn parse(format: &str) -> anyhow::Result<Self> {
        let format = if format == "json" { "{{json .}}" } else { format };
        let (table, body) = match format.strip_prefix("table ") {
            Some(body) => (true, body.trim_start()),
            None => (false, format),
        };
        let mut parts = Vec::new();
        let mut rest = body;
        while let Some(start) = rest.find("{{") {
            push_text(&mut parts, &rest[..start]);
            let inner = &rest[start + 2..];
            let end = inner
                .find("}}")
                .ok_or_else(|| usage(format!("the format {format:?} lacks a closing }}}}")))?;
            parts.push(parse_action(&inner[..end])?);
            rest = &inner[end + 2..];
        }
        push_text(&mut parts, rest);
        Ok(Self { table, parts })
    }

    /// Whether rows are to be aligned below a heading.
    pub(crate) fn is_table(&self) -> bool {
        self.table
    }

    /// The line for one object.
    pub(crate) fn render(&self, object: &Value) -> anyhow::Result<String> {
        let mut line = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Field { function, path } => {
                    let value = lookup(object, path)?;
                    write_value(&mut line, *function, value);
                }
            }
        }
        Ok(line)
    }

    /// The heading line: each field's name from `names`, else the field itself in capitals.
    pub(crate) fn heading(&self, names: &[(&str, &str)]) -> String {
        let mut line = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Field { path, .. } => {
                    let field = path.last().map_or("", String::as_str);
                    match names.iter().find(|(name, _)| *name == field) {
                        Some((_, heading)) => line.push_str(heading),
                        None => line.push_str(&field.to_uppercase()),
                    }
                }
            }
        }
        line
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.replace("\\t", "\t").replace("\\n", "\n")));
    }
}

fn parse_action(action: &str) -> anyhow::Result<Part> {
    let unknown = || usage(format!("the format has {{{{{action}}}}}, which is not supported"));
    // Go's trim markers (`{{- .X -}}`) mean nothing on one line.
    let words: Vec<_> = action.split_whitespace().filter(|word| *word != "-").collect();
    let (function, field) = match words[..] {
        [field] => (Function::Plain, field),
        ["json", field] => (Function::Json, field),
        ["upper", field] => (Function::Upper, field),
        ["lower", field] => (Function::Lower, field),
        _ => return Err(unknown()),
    };
    let path = field.strip_prefix('.').ok_or_else(unknown)?;
    let path = path.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Ok(Part::Field { function, path })
}

fn lookup<'a>(object: &'a Value, path: &[String]) -> anyhow::Result<&'a Value> {
    let mut value = object;
    for name in path {
        value = match value {
            Value::Object(fields) => fields.get(name).ok_or_else(|| {
                let known = fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                usage(format!("the format names .{name}; there are {known}"))
            })?,
            _ => {
                return Err(usage(format!("the format names .{name} of something without fields")));
            }
        };
    }
    Ok(value)
}

fn write_value(line: &mut String, function: Function, value: &Value) {
    match (function, value) {
        (Function::Plain, Value::String(text)) => line.push_str(text),
        (Function::Upper, Value::String(text)) => line.push_str(&text.to_uppercase()),
        (Function::Lower, Value::String(text)) => line.push_str(&text.to_lowercase()),
        (Function::Plain, Value::Null) => {}
        // Writing to a string cannot fail.
        (_, value) => drop(write!(line, "{value}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_filled_in() {
        let object = json!({"Name": "deb", "N": 3, "L": ["a"], "S": {"P": null, "On": true}});
        for (format, expected) in [
            ("{{.Name}}", "deb"),
            ("{{ .Name }}:{{.N}}", "deb:3"),
            ("{{json .Name}}", "\"deb\""),
            ("{{json .L}}", "[\"a\"]"),
            ("{{.L}}", "[\"a\"]"),
            ("{{upper .Name}}\\t{{lower .Name}}", "DEB\tdeb"),
            ("{{.S.On}}|{{.S.P}}|{{json .S.P}}", "true||null"),
            ("json", r#"{"L":["a"],"N":3,"Name":"deb","S":{"On":true,"P":null}}"#),
            ("plain }} text", "plain }} text"),
            ("", ""),
        ] {
            let template = Template::parse(format).expect(format);
            assert_eq!(template.render(&object).expect(format), expected, "{format}");
            assert!(!template.is_table(), "{format}");
        }
    }

    #[test]
    fn headings_come_from_the_fields() {
        let template = Template::parse("table {{.ID}}\\t{{.Size}}").expect("a good format");
        assert!(template.is_table());
        assert_eq!(template.heading(&[("ID", "IMAGE ID")]), "IMAGE ID\tSIZE");
    }

    #[test]
    fn mistakes_are_named() {
        let object = json!({"Name": "deb"});
        for (format, expected) in [
            ("{{.Name", "lacks a closing"),
            ("{{range .Name}}", "not supported"),
            ("{{Name}}", "not supported"),
            ("{{}}", "not supported"),
            ("{{.Nome}}", "there are Name"),
            ("{{.Name.X}}", "without fields"),
        ] {
            let error = Template::parse(format)
                .and_then(|template| template.render(&object))
                .expect_err(format);
            assert!(error.to_string().contains(expected), "{format}: {error}");
        }
    }
}
