//! Grafana's dashboards as it reads them from files: their queries, with variables put in as it does.

use std::{fs, path::Path};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

/// One dashboard.
#[derive(Clone, Debug)]
pub struct Dashboard {
    /// Its stable name.
    pub uid: String,
    /// Its panels, rows aside.
    pub panels: Vec<Panel>,
    /// Queries of the annotations, by name.
    pub annotations: Vec<(String, String)>,
    /// Variables that are read from Prometheus.
    pub variables: Vec<Variable>,
}

/// One panel.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What stands above it.
    pub title: String,
    /// Its queries, with variables in them.
    pub queries: Vec<Query>,
    /// As in the file.
    pub json: Value,
}

/// One query of a panel.
#[derive(Clone, Debug)]
pub struct Query {
    /// PromQL.
    pub promql: String,
    /// The name of each series.
    pub legend: String,
    /// Whether only the latest value is asked for.
    pub instant: bool,
}

/// One variable: `label_values(SERIES, LABEL)`.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name, and where `$NAME` stands.
    pub name: String,
    /// Whose label it is.
    pub series: String,
    /// The label.
    pub label: String,
    /// Whether all values may be chosen together.
    pub all: bool,
}

/// All dashboards of a directory, in the order of their files.
pub fn dashboards(directory: &Path) -> Result<Vec<Dashboard>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .iter()
        .map(|path| read(path).with_context(|| path.display().to_string()))
        .collect()
}

fn read(path: &Path) -> Result<Dashboard> {
    let json: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    let panels = list(&json["panels"])?
        .iter()
        .filter(|panel| panel["type"] != "row");
    let annotations = list(&json["annotations"]["list"])?.iter();
    let variables = list(&json["templating"]["list"])?
        .iter()
        .filter(|variable| variable["type"] == "query");
    Ok(Dashboard {
        uid: text(&json["uid"])?,
        panels: panels.map(panel).collect::<Result<_>>()?,
        annotations: annotations
            .map(|one| Ok((text(&one["name"])?, text(&one["expr"])?)))
            .collect::<Result<_>>()?,
        variables: variables.map(variable).collect::<Result<_>>()?,
    })
}

fn panel(json: &Value) -> Result<Panel> {
    let queries = list(&json["targets"])?.iter().map(|target| {
        Ok(Query {
            promql: text(&target["expr"])?,
            legend: text(&target["legendFormat"])?,
            instant: target["instant"] == true,
        })
    });
    Ok(Panel {
        title: text(&json["title"])?,
        queries: queries.collect::<Result<_>>()?,
        json: json.clone(),
    })
}

fn variable(json: &Value) -> Result<Variable> {
    let query = text(&json["query"]["query"])?;
    let inner = query
        .strip_prefix("label_values(")
        .and_then(|rest| rest.strip_suffix(')'));
    // The label stands behind the last comma; the series may have some in it.
    let (series, label) = inner
        .and_then(|inner| inner.rsplit_once(", "))
        .with_context(|| format!("`{query}` does not list a label's values"))?;
    Ok(Variable {
        name: text(&json["name"])?,
        series: series.to_owned(),
        label: label.to_owned(),
        all: json["includeAll"] == true,
    })
}

/// Puts values in the place of variables, of Grafana's own as well.
///
/// # Errors
///
/// A variable has no value.
pub fn fill(promql: &str, values: &[(&str, &str)]) -> Result<String> {
    let mut names: Vec<_> = values.to_vec();
    // `$a` stands at the beginning of `$ab`, too.
    names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    let mut filled = promql.to_owned();
    for (name, value) in names {
        filled = filled.replace(&format!("${name}"), value);
    }
    ensure!(!filled.contains('$'), "`{filled}` has a variable left");
    Ok(filled)
}

fn list(value: &Value) -> Result<&Vec<Value>> {
    value
        .as_array()
        .ok_or_else(|| anyhow!("{value} is no list"))
}

fn text(value: &Value) -> Result<String> {
    let text = value.as_str();
    text.map(str::to_owned)
        .ok_or_else(|| anyhow!("{value} is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in() {
        let values = [("a", "1"), ("ab", "2")];
        assert_eq!(fill("x{y=\"$ab\"}[$a]", &values).unwrap(), "x{y=\"2\"}[1]");
        assert!(fill("x{y=\"$c\"}", &values).is_err());
    }
}
