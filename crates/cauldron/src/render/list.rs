//! A list of objects as a table, by a template, as JSON or as ids only: one rule for every `ls`.

use super::{table, template};
use serde_json::Value;

/// The columns of a listing: field names and their headers.
pub struct Listing {
    /// The default template, without `table `.
    pub table: &'static str,
    /// Headers of fields whose header is not the field's name in capitals.
    pub headers: &'static [(&'static str, &'static str)],
}

/// How the caller wants it.
#[derive(Clone, Copy, Default)]
pub struct Style<'a> {
    /// `--format`.
    pub format: Option<&'a str>,
    /// `--quiet`: this field only.
    pub quiet: bool,
    /// The field that `--quiet` prints.
    pub key: &'a str,
}

impl Listing {
    /// The rows as text.
    ///
    /// # Errors
    /// The template is malformed or names a field that there is not.
    pub fn render(&self, rows: &[Value], style: &Style) -> Result<String, String> {
        let format = style.format.filter(|format| !format.is_empty());
        if style.quiet && format.is_none_or(|format| format == "table") {
            return Ok(rows
                .iter()
                .map(|row| format!("{}\n", row[style.key].as_str().unwrap_or_default()))
                .collect());
        }
        let (in_table, source) = match format {
            None | Some("table") => (true, self.table.to_owned()),
            Some("json") => (false, "{{json .}}".to_owned()),
            Some(format) => match format.strip_prefix("table ") {
                Some(rest) => (true, unescape(rest.trim_start())),
                None => (false, unescape(format)),
            },
        };
        let template = template::Template::parse(&source)?;
        let mut out = String::new();
        if in_table {
            out.push_str(&template.header(&self.header())?);
            out.push('\n');
        }
        for row in rows {
            out.push_str(&template.render(row)?);
            out.push('\n');
        }
        Ok(if in_table { table::align(&out) } else { out })
    }

    fn header(&self) -> Value {
        let mut map = serde_json::Map::new();
        for (field, header) in self.headers {
            map.insert((*field).to_owned(), Value::from(*header));
        }
        Value::Object(map)
    }
}

/// `\t` and `\n` in a format given on the command line.
fn unescape(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LISTING: Listing =
        Listing { table: "{{.ID}}\t{{.Name}}", headers: &[("ID", "CONTAINER ID"), ("Name", "NAME")] };

    fn render(format: Option<&str>, quiet: bool) -> String {
        let rows = [json!({"ID": "1", "Name": "one"}), json!({"ID": "2", "Name": "two"})];
        LISTING.render(&rows, &Style { format, quiet, key: "ID" }).unwrap()
    }

    #[test]
    fn styles() {
        assert_eq!(render(None, false), "CONTAINER ID   NAME\n1              one\n2              two\n");
        assert_eq!(render(None, true), "1\n2\n");
        assert_eq!(render(Some("{{.Name}}"), false), "one\ntwo\n");
        assert_eq!(render(Some(r"{{.ID}}\t{{.Name}}"), false), "1\tone\n2\ttwo\n");
        assert_eq!(render(Some("table {{.Name}}"), false), "NAME\none\ntwo\n");
        assert_eq!(
            render(Some("json"), false),
            "{\"ID\":\"1\",\"Name\":\"one\"}\n{\"ID\":\"2\",\"Name\":\"two\"}\n"
        );
        assert!(
            LISTING.render(&[json!({})], &Style { format: Some("{{.Nope}}"), ..Style::default() }).is_err()
        );
    }
}
