//! `cargo xtask dashboards`: Grafana's dashboards, each made of a description that leaves out what all
//! of them have in common. Grafana reads the JSON, people edit the TOML; a test compares the two.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::workspace;

mod description;
mod render;

use description::Dashboard;

/// Writes every dashboard, and removes those whose description is gone.
pub(crate) fn run() -> Result<()> {
    let directory = made();
    let files = rendered()?;
    for path in listed(&directory, "json")? {
        if !files.contains_key(&path) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    for (path, text) in files {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// Where Grafana finds them.
fn made() -> PathBuf {
    workspace::root().join("compose/grafana/dashboards")
}

/// The text of each dashboard, by the file that it belongs into.
fn rendered() -> Result<BTreeMap<PathBuf, String>> {
    let sources = listed(&workspace::root().join("compose/grafana/source"), "toml")?;
    ensure!(!sources.is_empty(), "there are no dashboards to write");
    let rendered = sources.iter().map(|source| {
        let text = fs::read_to_string(source)?;
        let dashboard: Dashboard = toml::from_str(&text)?;
        let json = serde_json::to_string_pretty(&render::dashboard(&dashboard)?)?;
        let file = made().join(format!("{}.json", dashboard.uid));
        Ok((file, json + "\n"))
    });
    rendered
        .zip(&sources)
        .map(|(one, source): (Result<_>, _)| one.with_context(|| source.display().to_string()))
        .collect()
}

/// Files of a directory with this extension, in order.
fn listed(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>>>()?;
    paths.retain(|path| path.extension().is_some_and(|own| own == extension));
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grafana_reads_is_what_the_descriptions_say() {
        let files = rendered().unwrap();
        let present = listed(&made(), "json").unwrap();
        assert_eq!(
            present,
            files.keys().cloned().collect::<Vec<_>>(),
            "run `cargo xtask dashboards`"
        );
        for (path, text) in files {
            let written = fs::read_to_string(&path).unwrap();
            assert!(
                written == text,
                "{} is not current: run `cargo xtask dashboards`",
                path.display()
            );
        }
    }
}
