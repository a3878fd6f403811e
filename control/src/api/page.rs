//! `/api/v1/docs`: the `OpenAPI` document as a page for browsers. It is made here, needs no script and nothing from elsewhere.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use axum::extract::State;
use serde_json::{Map, Value};

use super::App;
use super::html::{Html, Page, page};

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222;background:#fff}\
h2{border-bottom:1px solid #ccc;margin-top:2em}h3{font-size:1em;margin:1.6em 0 .2em}code,b.m{font-family:monospace}\
b.m{display:inline-block;min-width:4.5em;padding:0 .4em;margin-right:.6em;color:#fff;background:#456;border-radius:3px;text-align:center}\
b.delete{background:#a33}b.post{background:#27613a}b.put,b.patch{background:#8a5a00}table{border-collapse:collapse;margin:.3em 0 .8em}\
td,th{border:1px solid #ddd;padding:.15em .6em;text-align:left;vertical-align:top}th{background:#f2f2f2}p{margin:.3em 0}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}th{background:#2a2a2a}td,th{border-color:#444}a{color:#8bf}}";

/// This description as a page: every operation by its tag, then every schema.
#[utoipa::path(get, path = "/docs", tag = "configuration", responses((status = 200, description = "HTML", body = String, content_type = "text/html")))]
pub(super) async fn reference(State(app): State<App>) -> Page {
    page(app.page.to_string())
}

/// Makes the page of an `OpenAPI` document.
pub(super) fn render(openapi: &str) -> Arc<str> {
    let document: Value = serde_json::from_str(openapi).unwrap_or_default();
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_page(&mut out, &document);
    out.into()
}

/// Text in which backticks set off names, as HTML.
struct Prose<'a>(&'a str);

impl fmt::Display for Prose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.split('`').enumerate() {
            match at % 2 {
                0 => write!(f, "{}", Html(part))?,
                _ => write!(f, "<code>{}</code>", Html(part))?,
            }
        }
        Ok(())
    }
}

fn text<'a>(value: &'a Value, key: &str) -> Prose<'a> {
    Prose(value[key].as_str().unwrap_or_default())
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn write_page(out: &mut String, document: &Value) -> fmt::Result {
    let info = &document["info"];
    write!(out, "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">")?;
    write!(out, "<title>{0} API</title><style>{STYLE}</style><h1>{0} {1}</h1>", text(info, "title"), text(info, "version"))?;
    write!(out, "<p>{}</p><p><a href=\"openapi.json\">openapi.json</a></p>", text(info, "description"))?;
    let mut tags: BTreeMap<&str, Vec<(&str, &str, &Value)>> = BTreeMap::new();
    for (path, item) in members(&document["paths"]) {
        for (method, operation) in members(item).filter(|(_, operation)| operation.get("responses").is_some()) {
            tags.entry(operation["tags"][0].as_str().unwrap_or("other")).or_default().push((path, method, operation));
        }
    }
    for (tag, operations) in tags {
        write!(out, "<h2>{}</h2>", Html(tag))?;
        for (path, method, operation) in operations {
            write!(out, "<h3><b class=\"m {method}\">{}</b><code>{}</code></h3>", method.to_uppercase(), Html(path))?;
            write_operation(out, operation)?;
        }
    }
    write!(out, "<h2>Schemas</h2>")?;
    for (name, schema) in members(&document["components"]["schemas"]) {
        write!(out, "<h3 id=\"{0}\"><code>{0}</code></h3><p>{1}</p>", Html(name), text(schema, "description"))?;
        write_schema(out, schema)?;
    }
    write!(out, "</html>")
}

fn write_operation(out: &mut String, operation: &Value) -> fmt::Result {
    write!(out, "<p>{}</p>", text(operation, "summary"))?;
    if operation["description"] != operation["summary"] {
        write!(out, "<p>{}</p>", text(operation, "description"))?;
    }
    let parameters = list(&operation["parameters"]);
    if !parameters.is_empty() {
        write!(out, "<table><tr><th>parameter<th>in<th>type<th>what</tr>")?;
        for parameter in parameters {
            let required = if parameter["required"] == true { ", required" } else { "" };
            write!(out, "<tr><td><code>{}</code><td>{}{required}<td>", text(parameter, "name"), text(parameter, "in"))?;
            write_type(out, &parameter["schema"])?;
            write!(out, "<td>{}</tr>", text(parameter, "description"))?;
        }
        write!(out, "</table>")?;
    }
    for (kind, content) in members(&operation["requestBody"]["content"]) {
        write!(out, "<p>Body ({}): ", Html(kind))?;
        write_type(out, &content["schema"])?;
        write!(out, "</p>")?;
    }
    write!(out, "<table><tr><th>answer<th>body<th>what</tr>")?;
    for (status, response) in members(&operation["responses"]) {
        write!(out, "<tr><td>{}<td>", Html(status))?;
        for (_, content) in members(&response["content"]) {
            write_type(out, &content["schema"])?;
        }
        write!(out, "<td>{}</tr>", text(response, "description"))?;
    }
    write!(out, "</table>")
}

fn write_schema(out: &mut String, schema: &Value) -> fmt::Result {
    let Some(properties) = schema["properties"].as_object() else {
        write!(out, "<p>")?;
        write_type(out, schema)?;
        return write!(out, "</p>");
    };
    write!(out, "<table><tr><th>field<th>type<th>what</tr>")?;
    for (name, property) in properties {
        let required = if list(&schema["required"]).iter().any(|field| field == name) { ", required" } else { "" };
        write!(out, "<tr><td><code>{}</code>{required}<td>", Html(name))?;
        write_type(out, property)?;
        write!(out, "<td>{}</tr>", text(property, "description"))?;
    }
    write!(out, "</table>")
}

fn write_type(out: &mut String, schema: &Value) -> fmt::Result {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return write!(out, "<a href=\"#{0}\">{0}</a>", Html(name));
    }
    let parts = ["oneOf", "anyOf", "allOf"].map(|several| list(&schema[several])).concat();
    if !parts.is_empty() {
        return separated(out, &parts, write_type);
    }
    let constant = schema.get("const").map(std::slice::from_ref);
    if let Some(values) = schema["enum"].as_array().map(Vec::as_slice).or(constant) {
        return separated(out, values, |out, value| write!(out, "<code>{}</code>", Html(&value.to_string())));
    }
    match &schema["type"] {
        Value::Array(kinds) => separated(out, kinds, |out, kind| write!(out, "{}", Html(kind.as_str().unwrap_or_default()))),
        kind if kind == "array" => {
            write!(out, "list of ")?;
            write_type(out, &schema["items"])
        }
        kind => write!(out, "{}", Html(kind.as_str().unwrap_or("any"))),
    }
}

fn separated(out: &mut String, parts: &[Value], write: fn(&mut String, &Value) -> fmt::Result) -> fmt::Result {
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            out.push_str(" or ");
        }
        write(out, part)?;
    }
    Ok(())
}
