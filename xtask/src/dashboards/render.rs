//! The JSON that Grafana 10 and 11 read (schema version 39).

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};

use super::description::{Dashboard, Kind, Mark, Panel, Step, Variable};

/// Version of the schema: that of Grafana 10.4, which later ones read.
const SCHEMA: u32 = 39;
/// Units of width that a line of panels has.
const WIDTH: u32 = 24;

/// The whole of it.
pub(super) fn dashboard(dashboard: &Dashboard) -> Result<Value> {
    let variables = [json!({
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "refresh": 1,
    })];
    let variables = variables
        .into_iter()
        .chain(dashboard.variable.iter().map(variable));
    Ok(json!({
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["lb-agent"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "links": [{
            "title": "lb-agent",
            "type": "dashboards",
            "tags": ["lb-agent"],
            "asDropdown": true,
            "includeVars": true,
            "keepTime": true,
            "targetBlank": false,
        }],
        "templating": {"list": variables.collect::<Vec<_>>()},
        "annotations": {"list": dashboard.mark.iter().map(mark).collect::<Vec<_>>()},
        "panels": panels(dashboard)?,
    }))
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

fn variable(variable: &Variable) -> Value {
    let label = variable.label.as_ref().unwrap_or(&variable.name);
    let query = format!("label_values({}, {label})", variable.of);
    let mut made = json!({
        "name": variable.name,
        "label": variable.name,
        "type": "query",
        "datasource": source(),
        "definition": query,
        "query": {"query": query, "refId": "variable"},
        // When the range changes: services come and go.
        "refresh": 2,
        "sort": 1,
        "multi": variable.many,
        "includeAll": variable.many,
        "current": {},
        "hide": 0,
    });
    if variable.many {
        made["current"] = json!({"text": ["All"], "value": ["$__all"]});
        // What is not there yet is shown as soon as it comes, and an empty label too.
        made["allValue"] = json!(".*");
    }
    made
}

fn mark(mark: &Mark) -> Value {
    json!({
        "name": mark.name,
        "datasource": source(),
        "enable": true,
        "expr": mark.query,
        "iconColor": mark.color,
        "step": "10s",
        "titleFormat": mark.name,
        "textFormat": mark.text,
        "useValueForTime": false,
    })
}

fn panels(dashboard: &Dashboard) -> Result<Vec<Value>> {
    let mut made = Vec::new();
    let mut y = 0;
    for row in &dashboard.row {
        made.push(json!({
            "id": made.len() + 1,
            "type": "row",
            "title": row.title,
            "collapsed": false,
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
            "panels": [],
        }));
        y += 1;
        let (mut x, mut tallest) = (0, 0);
        for panel in &row.panel {
            let (width, height) = panel.kind.size();
            let (width, height) = (panel.width.unwrap_or(width), panel.height.unwrap_or(height));
            if x + width > WIDTH {
                (x, y, tallest) = (0, y + tallest, 0);
            }
            let place = json!({"x": x, "y": y, "w": width, "h": height});
            made.push(self::panel(panel, made.len() + 1, place)?);
            x += width;
            tallest = tallest.max(height);
        }
        y += tallest;
    }
    Ok(made)
}

fn panel(panel: &Panel, id: usize, place: Value) -> Result<Value> {
    ensure!(
        !panel.queries.is_empty() && panel.queries.len() <= 26,
        "panel {:?} needs a query for each letter that it uses",
        panel.title
    );
    let at_once = panel.kind == Kind::Table;
    let targets = ('A'..)
        .zip(&panel.queries)
        .map(|(letter, (query, legend))| {
            json!({
                "refId": letter.to_string(),
                "datasource": source(),
                "editorMode": "code",
                "expr": query.trim(),
                "legendFormat": legend,
                "range": !at_once,
                "instant": at_once,
                "format": match panel.kind {
                    Kind::Table => "table",
                    Kind::Heatmap => "heatmap",
                    _ => "time_series",
                },
            })
        });
    let mut made = json!({
        "id": id,
        "type": match panel.kind {
            Kind::Lines | Kind::Stack => "timeseries",
            Kind::Stat => "stat",
            Kind::Table => "table",
            Kind::States => "state-timeline",
            Kind::Heatmap => "heatmap",
        },
        "title": panel.title,
        "description": panel.about,
        "datasource": source(),
        "gridPos": place,
        "targets": targets.collect::<Vec<_>>(),
        "fieldConfig": {"defaults": defaults(panel), "overrides": []},
        "options": options(panel.kind),
    });
    if at_once {
        // The labels that tell rows apart remain, and the value.
        made["transformations"] = json!([{
            "id": "organize",
            "options": {"excludeByName": {"Time": true, "__name__": true, "job": true}},
        }]);
    }
    Ok(made)
}

/// How values are shown.
fn defaults(panel: &Panel) -> Value {
    let mut made = Map::new();
    made.insert("unit".into(), json!(panel.unit));
    for (name, bound) in [("min", panel.min), ("max", panel.max)] {
        if let Some(bound) = bound {
            made.insert(name.into(), json!(bound));
        }
    }
    let by_value = !panel.steps.is_empty() || panel.kind == Kind::States;
    let mode = match by_value && !matches!(panel.kind, Kind::Lines | Kind::Stack) {
        true => "thresholds",
        false => "palette-classic",
    };
    made.insert("color".into(), json!({"mode": mode}));
    if !panel.steps.is_empty() {
        let steps = panel.steps.iter().map(|step| match step {
            Step::Base(color) => json!({"color": color, "value": null}),
            Step::From(bound, color) => json!({"color": color, "value": bound}),
        });
        let steps: Vec<Value> = steps.collect();
        made.insert(
            "thresholds".into(),
            json!({"mode": "absolute", "steps": steps}),
        );
    }
    if !panel.words.is_empty() {
        let options: Map<String, Value> = (0..)
            .zip(&panel.words)
            .map(|(index, (value, word))| {
                let shown = json!({"text": word.0, "color": word.1, "index": index});
                (value.clone(), shown)
            })
            .collect();
        made.insert(
            "mappings".into(),
            json!([{"type": "value", "options": options}]),
        );
    }
    if let Some(uid) = &panel.opens {
        let link = json!([{"title": "Open", "url": link(uid, panel), "targetBlank": false}]);
        made.insert("links".into(), link);
    }
    if let Some(custom) = custom(panel) {
        made.insert("custom".into(), custom);
    }
    Value::Object(made)
}

/// The other dashboard, with the same source, nodes and time, and the series' service if it has one.
fn link(uid: &str, panel: &Panel) -> String {
    let of_services = |(query, _): &(String, String)| {
        ["by (service", "service:"]
            .iter()
            .any(|words| query.contains(words))
    };
    let service = match panel.queries.iter().all(of_services) {
        true => "&var-service=${__field.labels.service}",
        false => "",
    };
    format!(
        "/d/{uid}?${{datasource:queryparam}}&${{instance:queryparam}}{service}&${{__url_time_range}}"
    )
}

/// What only some kinds of panels have.
fn custom(panel: &Panel) -> Option<Value> {
    let (fill, stacking) = match panel.kind {
        Kind::Lines => (8, "none"),
        Kind::Stack => (40, "normal"),
        Kind::States => return Some(json!({"fillOpacity": 80, "lineWidth": 0})),
        Kind::Stat | Kind::Table | Kind::Heatmap => return None,
    };
    let drawn = if panel.steps.is_empty() {
        "off"
    } else {
        "dashed"
    };
    Some(json!({
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": fill,
        "showPoints": "never",
        "spanNulls": false,
        "stacking": {"mode": stacking, "group": "A"},
        "thresholdsStyle": {"mode": drawn},
    }))
}

fn options(kind: Kind) -> Value {
    match kind {
        Kind::Lines | Kind::Stack => json!({
            "legend": {"displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": ["lastNotNull", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }),
        Kind::Stat => json!({
            "colorMode": "value",
            "graphMode": "area",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
        }),
        Kind::Table => json!({"showHeader": true, "cellHeight": "sm"}),
        Kind::States => json!({
            "mergeValues": true,
            "showValue": "auto",
            "rowHeight": 0.9,
            "alignValue": "left",
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true},
            "tooltip": {"mode": "single"},
        }),
        Kind::Heatmap => json!({
            "calculate": false,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
            "yAxis": {"unit": "s"},
            "tooltip": {"mode": "single", "yHistogram": false},
            "legend": {"show": true},
        }),
    }
}
