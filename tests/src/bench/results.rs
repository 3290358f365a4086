//! The file of results: `target/bench/NAME.json`, an array of rows.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::Samples;

/// One thing measured of one side.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// What was measured.
    pub case: &'a str,
    /// Of whom: lb-agent, a peer by its name, or the floor.
    pub side: &'a str,
    /// Unit of the values.
    pub unit: &'a str,
    /// The values.
    pub samples: &'a Samples,
}

/// Writes the rows, and answers with the file's path.
///
/// # Errors
///
/// A row without a measurement, or the file cannot be written.
pub fn write(name: &str, rows: &[Row<'_>]) -> Result<PathBuf> {
    write_to(Path::new("target/bench"), name, rows)
}

fn write_to(directory: &Path, name: &str, rows: &[Row<'_>]) -> Result<PathBuf> {
    let mut array = Vec::new();
    for row in rows {
        ensure!(
            row.samples.runs() > 0 && row.samples.values().iter().all(|value| value.is_finite()),
            "{} of {} was not measured",
            row.case,
            row.side
        );
        array.push(serde_json::json!({
            "case": row.case,
            "side": row.side,
            "unit": row.unit,
            "median": row.samples.median(),
            "min": row.samples.min(),
            "max": row.samples.max(),
            "runs": row.samples.runs(),
        }));
    }
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let path = directory.join(format!("{name}.json"));
    fs::write(&path, serde_json::to_string_pretty(&array)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let samples: Samples = [3.0, 1.0, 2.0].into_iter().collect();
        let mut row = Row {
            case: "drop",
            side: "lb-agent",
            unit: "ns",
            samples: &samples,
        };
        let path = write_to(directory.path(), "x", &[row.clone()]).unwrap();
        let read: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(
            read,
            serde_json::json!([{
                "case": "drop", "side": "lb-agent", "unit": "ns",
                "median": 2.0, "min": 1.0, "max": 3.0, "runs": 3,
            }])
        );
        let nothing = Samples::default();
        row.samples = &nothing;
        let error = write_to(directory.path(), "x", &[row]).unwrap_err();
        assert_eq!(error.to_string(), "drop of lb-agent was not measured");
    }
}
