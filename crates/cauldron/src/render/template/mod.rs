//! The subset of Go's text/template that `--format` is used for, over JSON values: fields, variables, pipelines,
//! `if`, `else`, `with`, `range`, trim markers, comments, and Go's and Docker's functions.
//!
//! Differences from Go: JSON has no types, so an object whose keys all begin with a capital is taken for a struct
//! (an unknown field is an error) and any other for a map (an unknown key is `<no value>`).

mod eval;
mod function;
mod parse;
mod print;

pub use eval::LABELS;

use serde_json::Value;

/// A parsed template.
pub struct Template {
    nodes: Vec<parse::Node>,
}

impl Template {
    /// Parses.
    ///
    /// # Errors
    /// The template is malformed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let nodes =
            parse::parse(text).map_err(|error| format!("template parsing error: template: :1: {error}"))?;
        Ok(Self { nodes })
    }

    /// The text for one value.
    ///
    /// # Errors
    /// A field does not exist, or a function is used wrongly.
    pub fn render(&self, value: &Value) -> Result<String, String> {
        let mut out = String::new();
        let mut scope = eval::Scope::new(value, false);
        scope.nodes(&self.nodes, value, &mut out).map_err(|error| format!("template: :1: {error}"))?;
        Ok(out)
    }

    /// The line of headers: a field that `headers` does not have is its own name in capitals.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn header(&self, headers: &Value) -> Result<String, String> {
        let mut out = String::new();
        let mut scope = eval::Scope::new(headers, true);
        scope.nodes(&self.nodes, headers, &mut out).map_err(|error| format!("template: :1: {error}"))?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value() -> Value {
        json!({
            "Name": "web", "Count": 3, "Ratio": 0.5, "On": true, "Off": false, "Null": null, "Config": {"Cmd": null, "Volumes": null},
            "State": {"Status": "running", "ExitCode": 0},
            "Labels": {"b": "2", "a": "1"}, "List": ["x", "y"], "Empty": [],
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]},
        })
    }

    #[test]
    fn rendered() {
        let table = [
            ("plain", "plain"),
            ("{{.Name}}", "web"),
            ("{{ .State.Status }}/{{.State.ExitCode}}", "running/0"),
            ("{{json .Labels}}", r#"{"a":"1","b":"2"}"#),
            ("{{.Labels}}", "map[a:1 b:2]"),
            ("{{.List}}", "[x y]"),
            ("{{index .Labels \"a\"}}", "1"),
            ("{{index .List 1}}", "y"),
            ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080"),
            ("{{range .List}}<{{.}}>{{end}}", "<x><y>"),
            ("{{range $i, $e := .List}}{{if $i}},{{end}}{{$e}}{{end}}", "x,y"),
            ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a=1;b=2;"),
            ("{{range .Empty}}x{{else}}none{{end}}", "none"),
            ("{{if .On}}yes{{else}}no{{end}}", "yes"),
            ("{{if .Off}}a{{else if eq .Count 3}}b{{else}}c{{end}}", "b"),
            ("{{if and .On (not .Off)}}ok{{end}}", "ok"),
            ("{{or .Off .Name}}", "web"),
            ("{{with .State}}{{.Status}}{{end}}", "running"),
            ("{{with $x := .State}}{{$x.Status}} {{$.Name}}{{end}}", "running web"),
            ("{{len .List}}{{len .Name}}", "23"),
            ("{{join .List \", \"}}", "x, y"),
            ("{{split \"a,b\" \",\"}}", "[a b]"),
            ("{{upper .Name}} {{lower \"AB\"}} {{title \"ab cd\"}}", "WEB ab Ab Cd"),
            ("{{.Name | upper | printf \"%s-%d\" \"n\"}}", "n-%!d(string=WEB)"),
            (
                "{{printf \"%s %d %5.2f %q %v|%-5s|%5s|\" .Name .Count .Ratio .Name .On \"a\" \"b\"}}",
                "web 3  0.50 \"web\" true|a    |    b|",
            ),
            ("{{println .Name}}", "web\n"),
            ("{{pad .Name 1 2}}|", " web  |"),
            ("{{truncate .Name 2}}", "we"),
            ("{{eq .Name \"x\" \"web\"}} {{ne .Count 2}} {{lt 1 2}} {{ge 2 3}}", "true true true false"),
            ("a {{- .Name -}} b", "awebb"),
            ("a{{/* comment */}}b", "ab"),
            ("{{$x := .Name}}{{$x}}", "web"),
            ("{{.Labels.nope}}", "<no value>"),
            ("{{.Null}}", "<no value>"),
            ("{{.Config.Cmd}} {{.Config.Volumes}} {{json .Config.Cmd}}", "[] map[] null"),
            ("{{if .Config.Cmd}}a{{else}}b{{end}}{{range .Config.Cmd}}c{{end}}", "b"),
            ("{{if .State.Health}}x{{else}}none{{end}}", "none"),
            ("{{\"q\\\"uote\"}} {{`raw`}}", "q\"uote raw"),
            ("{{range $p, $b := .Ports}}{{$p}} -> {{(index $b 0).HostPort}}{{end}}", "80/tcp -> 8080"),
            ("{{slice .Name 0 2}}", "we"),
            ("{{range .List}}{{if eq . \"y\"}}{{break}}{{end}}{{.}}{{end}}", "x"),
        ];
        for (source, want) in table {
            let got = Template::parse(source).and_then(|template| template.render(&value()));
            assert_eq!(got.as_deref(), Ok(want), "{source}");
        }
    }

    #[test]
    fn refused() {
        for source in [
            "{{.Nope}}",
            "{{.State.Nope}}",
            "{{",
            "{{if .On}}",
            "{{end}}",
            "{{nofunc 1}}",
            "{{index .List 9}}",
            "{{.Name",
            "{{$x}}",
        ] {
            let got = Template::parse(source).and_then(|template| template.render(&value()));
            assert!(got.is_err(), "{source} gave {got:?}");
        }
    }

    #[test]
    fn headers() {
        let template = Template::parse("{{.ID}}\t{{.Label \"x\"}}\t{{upper .Other}}").unwrap();
        assert_eq!(template.header(&json!({"ID": "CONTAINER ID"})).unwrap(), "CONTAINER ID\tx\tOTHER");
    }
}
