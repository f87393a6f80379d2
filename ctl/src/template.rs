//! `--format`: what is printed of an object, in the language of Go's text/template
//! (<https://pkg.go.dev/text/template>), with the functions of Docker's command
//! (<https://docs.docker.com/engine/cli/formatting/>) that need no knowledge of their object.

use std::io::IsTerminal;
use std::sync::Arc;

use gotmpl::{MissingKey, Template, TemplateError, Value as Data};
use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::human::printable;

/// Checks the text of a template.
pub(crate) fn check(text: &str) -> Result<(), String> {
    parse(text).map(drop).map_err(|error| error.to_string())
}

/// What a template makes of an object.
pub(crate) fn render(text: &str, object: &Value) -> Outcome<String> {
    let failed = |error| Failure::new(format!("template parsing error: {error}"));
    let template = parse(text).map_err(failed)?;
    let data = gotmpl::to_value(object).map_err(failed)?;
    let made = template.execute_to_string(&data).map_err(failed)?;
    // Programs get it as it is.
    Ok(if std::io::stdout().is_terminal() { shown(&made) } else { made })
}

/// The text on a terminal: its lines and tabs stay, other control characters do nothing.
fn shown(text: &str) -> String {
    text.split_inclusive(['\n', '\t'])
        .map(|piece| match piece.strip_suffix(['\n', '\t']) {
            Some(start) => printable(start) + &piece[start.len()..],
            None => printable(piece),
        })
        .collect()
}

fn parse(text: &str) -> Result<Template, TemplateError> {
    Template::new("")
        .missing_key(MissingKey::Error)
        .func("json", |args| match args {
            [value] => Ok(Data::String(json(value)?.to_string().into())),
            _ => Err(wrong("json", "one value")),
        })
        .func("join", |args| match args {
            [Data::List(items), Data::String(between)] => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                Ok(Data::String(items.join(between).into()))
            }
            _ => Err(wrong("join", "a list and a text")),
        })
        .func("split", |args| match args {
            [Data::String(text), Data::String(at)] => {
                let parts = text.split(&**at).map(|part| Data::String(part.into()));
                Ok(Data::List(parts.collect::<Vec<_>>().into()))
            }
            _ => Err(wrong("split", "two texts")),
        })
        .func("lower", |args| changed("lower", args, str::to_lowercase))
        .func("upper", |args| changed("upper", args, str::to_uppercase))
        .func("index", index)
        .parse(text)
}

fn wrong(function: &str, takes: &str) -> TemplateError {
    TemplateError::Exec(format!("{function} takes {takes}"))
}

fn changed(
    name: &str,
    args: &[Data],
    change: impl Fn(&str) -> String,
) -> Result<Data, TemplateError> {
    match args {
        [Data::String(text)] => Ok(Data::String(change(text).into())),
        _ => Err(wrong(name, "a text")),
    }
}

/// As Go has it for maps of texts, such as labels: what is not there is the empty text.
fn index(args: &[Data]) -> Result<Data, TemplateError> {
    let [start, path @ ..] = args else { return Err(wrong("index", "an object")) };
    path.iter().try_fold(start.clone(), |at, key| match (&at, key) {
        (Data::Map(map), Data::String(key)) if !map.contains_key(&**key) => {
            Ok(Data::String(Arc::from("")))
        }
        _ => at.index(key),
    })
}

fn json(value: &Data) -> Result<Value, TemplateError> {
    Ok(match value {
        Data::Nil => Value::Null,
        Data::Bool(is) => (*is).into(),
        Data::Int(number) => (*number).into(),
        Data::Uint(number) => (*number).into(),
        Data::Float(number) => (*number).into(),
        Data::String(text) => (&**text).into(),
        Data::List(items) => items.iter().map(json).collect::<Result<Vec<_>, _>>()?.into(),
        Data::Map(map) => {
            let entry = |(key, value): (&Arc<str>, &Data)| Ok((key.to_string(), json(value)?));
            Value::Object(map.iter().map(entry).collect::<Result<_, TemplateError>>()?)
        }
        Data::Function(_) => return Err(wrong("json", "no function")),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_are_gos() {
        let object = json!({
            "Name": "/one",
            "State": { "Status": "running", "Pid": 12, "Dead": false },
            "Args": ["a", "b"],
            "Config": { "Labels": { "x.y": "z" }, "Cmd": null },
        });
        let cases = [
            ("{{.State.Status}}", "running"),
            ("{{ .Name }}: {{.State.Pid}}", "/one: 12"),
            ("{{json .State}}", r#"{"Dead":false,"Pid":12,"Status":"running"}"#),
            ("{{json .Config.Cmd}}", "null"),
            ("{{range .Args}}{{println .}}{{end}}", "a\nb\n"),
            ("{{range $i, $a := .Args}}{{$i}}={{$a}} {{end}}", "0=a 1=b "),
            ("{{join .Args \",\"}}", "a,b"),
            ("{{index .Config.Labels \"x.y\"}}{{index .Config.Labels \"no\"}}", "z"),
            ("{{if .State.Dead}}dead{{else}}alive{{end}}", "alive"),
            ("{{.State.Status | upper}}", "RUNNING"),
            ("{{len .Args}}{{printf \"%q\" .Name}}", "2\"/one\""),
            ("{{index (split .Name \"/\") 1}}", "one"),
            ("{{with .State}}{{.Pid}}{{end}} {{eq .State.Status \"running\"}}", "12 true"),
        ];
        for (text, expected) in cases {
            assert_eq!(render(text, &object).expect(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_in_one_is_said() {
        let missing = render("{{.State.Nosuch}}", &json!({ "State": {} })).expect_err("missing");
        assert!(missing.to_string().contains("Nosuch"), "{missing}");
        assert!(render("{{nosuch .State}}", &json!({ "State": {} })).is_err());
        assert!(check("{{.A").is_err());
    }

    #[test]
    fn terminals_are_not_driven() {
        assert_eq!(shown("a\tb\x1b[2J\nc\r"), "a\tb\\u{1b}[2J\nc\\r");
    }
}
