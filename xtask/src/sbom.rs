//! `cargo xtask sbom`: the bill of materials of the agent and of the programs, as CycloneDX JSON by
//! cargo-cyclonedx, looked through for what has to be in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{run, tool::Tool, workspace};

const CYCLONEDX: Tool = Tool {
    name: "cargo-cyclonedx",
    version: "0.5.9",
    said: "cargo-cyclonedx-cyclonedx",
};
const SPECIFICATION: &str = "1.5";
/// What the tool calls its file beside each manifest, before it is taken away from there.
const FILE: &str = "sbom-in-the-works";
/// The two halves, by directory and crate.
const HALVES: [&str; 2] = ["lb-agent", "lb-ebpf"];
/// Members of the workspace, for each of which the tool writes one.
const MEMBERS: [&str; 5] = ["lb-agent", "lb-ebpf", "lb-common", "tests", "xtask"];

/// Writes `target/sbom/HALF.cdx.json`.
///
/// # Errors
/// The tool cannot be installed, or leaves something out.
pub(crate) fn run() -> Result<()> {
    let cyclonedx = CYCLONEDX.ensure(&[])?;
    let directory = workspace::root().join("target/sbom");
    fs::create_dir_all(&directory)
        .with_context(|| format!("could not make {}", directory.display()))?;
    for half in HALVES {
        let manifest = format!("{half}/Cargo.toml");
        let written = write(&cyclonedx, half, &manifest);
        // Whatever became of it, the source tree stays as it was.
        for member in MEMBERS {
            let file = workspace::root().join(member).join(format!("{FILE}.json"));
            fs::remove_file(file).ok();
        }
        let text = written?;
        let bom: Value = serde_json::from_str(&text)
            .with_context(|| format!("the bill of materials of {half} is no JSON"))?;
        let crates = crates(half, &manifest)?;
        let missing = faults(&bom, half, &crates);
        ensure!(
            missing.is_empty(),
            "the bill of materials of {half} is not complete:\n{}",
            missing.join("\n")
        );
        let file = directory.join(format!("{half}.cdx.json"));
        fs::write(&file, text).with_context(|| format!("could not write {}", file.display()))?;
        println!("sbom: {} with {} crates", file.display(), crates.len());
    }
    Ok(())
}

/// What both are built on; the agent for it, too.
fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn write(cyclonedx: &Path, half: &str, manifest: &str) -> Result<String> {
    let mut command = run::command(cyclonedx);
    command
        .args([
            "cyclonedx",
            "--manifest-path",
            manifest,
            "--format",
            "json",
            "--all",
        ])
        .args(["--spec-version", SPECIFICATION, "--override-filename", FILE])
        .args(["--target", &target()]);
    run::run(
        &format!("write the bill of materials of {half}"),
        &mut command,
    )?;
    let file = workspace::root().join(half).join(format!("{FILE}.json"));
    fs::read_to_string(&file).with_context(|| format!("could not read {}", file.display()))
}

/// Names and versions of all crates that go into this one, its own included, for tests not.
fn crates(root: &str, manifest: &str) -> Result<BTreeSet<(String, String)>> {
    let said = run::output(
        &format!("ask cargo what {root} is made of"),
        run::cargo().args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            &target(),
            "--manifest-path",
            manifest,
        ]),
    )?;
    let metadata: Value = serde_json::from_str(&said).context("cargo metadata wrote no JSON")?;
    Ok(reachable(&metadata, root))
}

fn reachable(metadata: &Value, root: &str) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, (String, String)> = list(&metadata["packages"])
        .map(|package| {
            let named = (text(&package["name"]), text(&package["version"]));
            (text(&package["id"]), named)
        })
        .collect();
    let needs: BTreeMap<String, Vec<String>> = list(&metadata["resolve"]["nodes"])
        .map(|node| {
            let needed = list(&node["deps"]).filter(|dep| {
                let mut kinds = list(&dep["dep_kinds"]);
                kinds.any(|kind| kind["kind"].as_str() != Some("dev"))
            });
            (
                text(&node["id"]),
                needed.map(|dep| text(&dep["pkg"])).collect(),
            )
        })
        .collect();
    let mut open: Vec<&String> = packages
        .iter()
        .filter(|(_, (name, _))| name == root)
        .map(|(id, _)| id)
        .collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            open.extend(needs.get(id).into_iter().flatten());
        }
    }
    seen.into_iter()
        .filter_map(|id| packages.get(id).cloned())
        .collect()
}

/// What a bill lacks.
fn faults(bom: &Value, root: &str, crates: &BTreeSet<(String, String)>) -> Vec<String> {
    let mut faults = Vec::new();
    for (key, expected) in [("bomFormat", "CycloneDX"), ("specVersion", SPECIFICATION)] {
        if bom[key] != expected {
            faults.push(format!("{key} is {}, not {expected}", bom[key]));
        }
    }
    let subject = &bom["metadata"]["component"];
    if subject["name"] != root {
        faults.push(format!("it is about {}, not {root}", subject["name"]));
    }
    let components: BTreeMap<(&str, &str), &Value> = list(&bom["components"])
        .chain([subject])
        .map(|component| {
            let of = |key: &str| component[key].as_str().unwrap_or_default();
            ((of("name"), of("version")), component)
        })
        .collect();
    for (name, version) in crates {
        let Some(component) = components.get(&(name.as_str(), version.as_str())) else {
            faults.push(format!("{name} {version} is missing"));
            continue;
        };
        let purl = component["purl"].as_str().unwrap_or_default();
        let expected = format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"));
        if !purl.replace('+', "%2B").starts_with(&expected) {
            faults.push(format!("{name} {version} has the package URL `{purl}`"));
        }
        // Our own come from the tree and have no checksum.
        let foreign = !purl.contains("download_url=file");
        if list(&component["licenses"]).next().is_none() {
            faults.push(format!("{name} {version} has no licence"));
        }
        if foreign && list(&component["hashes"]).next().is_none() {
            faults.push(format!("{name} {version} has no checksum"));
        }
    }
    faults
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bom() -> Value {
        json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "metadata": { "component": {
                "name": "a", "version": "1.0.0", "licenses": [{ "expression": "MIT" }],
                "purl": "pkg:cargo/a@1.0.0?download_url=file://.",
            } },
            "components": [{
                "name": "b", "version": "2.0.0", "licenses": [{ "expression": "MIT" }],
                "hashes": [{ "alg": "SHA-256", "content": "00" }], "purl": "pkg:cargo/b@2.0.0",
            }],
        })
    }

    /// What is taken away is missed.
    #[test]
    fn faults_of_bills() {
        let crates: BTreeSet<_> = [("a", "1.0.0"), ("b", "2.0.0")]
            .map(|(name, version)| (name.to_owned(), version.to_owned()))
            .into();
        assert_eq!(faults(&bom(), "a", &crates), [""; 0]);
        let rows = [
            ("/bomFormat", "bomFormat"),
            ("/specVersion", "specVersion"),
            ("/metadata/component/name", "it is about"),
            ("/components/0/version", "b 2.0.0 is missing"),
            ("/components/0/purl", "package URL"),
            ("/components/0/licenses", "no licence"),
            ("/components/0/hashes", "no checksum"),
        ];
        for (place, expected) in rows {
            let mut bom = bom();
            *bom.pointer_mut(place).unwrap() = Value::Null;
            let faults = faults(&bom, "a", &crates).join("\n");
            assert!(faults.contains(expected), "{place}: {faults}");
        }
    }

    /// What only tests need is not in the product.
    #[test]
    fn crates_of_a_crate() {
        let needs = |pkg: &str, kind: Value| json!({ "pkg": pkg, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": (["a", "b", "c", "d", "e"].map(|name| json!({ "id": name, "name": name, "version": "1" }))),
            "resolve": { "nodes": [
                { "id": "a", "deps": [needs("b", Value::Null), needs("d", json!("dev"))] },
                { "id": "b", "deps": [needs("c", json!("build")), needs("a", json!("dev"))] },
                { "id": "d", "deps": [needs("e", Value::Null)] },
            ] },
        });
        let crates = reachable(&metadata, "a");
        let names: Vec<&str> = crates.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }
}
