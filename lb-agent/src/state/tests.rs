//! Tests of `state`.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use super::*;
use crate::domain::{backend::CatalogHealth, block::parse_prefix};

fn sample() -> PersistedState {
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5);
    let instance = Instance {
        id: InstanceId("node-1/echo-1".into()),
        address: "10.1.0.2:8080".parse().unwrap(),
        weight: 10,
        tags: vec!["v1".into()].into(),
        meta: BTreeMap::from([("version".into(), "1".into())]).into(),
        subset: None,
        detail: None,
        health: CatalogHealth::Warning("disk: 91 %".into()),
    };
    let drains = BTreeMap::from([(instance.id.clone(), Drain::begun(time))]);
    let down = Down {
        id: instance.id.clone(),
        address: instance.address,
        since: time,
        reason: "connection refused".into(),
    };
    PersistedState {
        splits: BTreeMap::from([("echo".into(), Shares::parse(&["v1=90", "v2=10"]).unwrap())]),
        drains: BTreeMap::from([("echo".into(), drains)]),
        blocks: vec![
            BlockRule {
                prefix: parse_prefix("192.0.2.0/24").unwrap(),
                reason: "scans".into(),
                added: time,
                expires: Some(time + Duration::from_secs(900)),
                origin: crate::domain::block::Origin::Operator,
            },
            BlockRule {
                prefix: parse_prefix("2001:db8::7").unwrap(),
                reason: String::new(),
                added: time,
                expires: None,
                origin: crate::domain::block::Origin::Operator,
            },
        ],
        catalog: BTreeMap::from([
            ("echo".into(), vec![instance].into()),
            ("none".into(), vec![].into()),
        ]),
        down: BTreeMap::from([("echo".into(), vec![down])]),
        allowed: BTreeMap::from([(parse_prefix("203.0.113.0/24").unwrap(), time)]),
        ..PersistedState::default()
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_saved_is_loaded() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("made/on/the/way");
    let dir = StateDir::open(&path).unwrap();
    assert_eq!(mode(&path) & !0o750, 0);
    let loaded = dir.load();
    assert_eq!(loaded.state, PersistedState::default());
    assert_eq!(loaded.problem, None);

    for state in [sample(), PersistedState::default(), sample()] {
        dir.save(&state).unwrap();
        let loaded = StateDir::open(&path).unwrap().load();
        assert_eq!(loaded.state, state);
        assert_eq!(loaded.problem, None);
    }
    assert_eq!(names(&path), [FILE]);
    assert_eq!(mode(&path.join(FILE)), 0o600);
}

/// A file of a version that had fewer fields, and one of a version that had more.
#[test]
fn missing_fields_take_their_default_and_unknown_ones_are_ignored() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = StateDir::open(temporary.path()).unwrap();
    let text = r#"{"version": 1, "splits": {"echo": {"v1": 1}}, "invented_later": [1]}"#;
    fs::write(temporary.path().join(FILE), text).unwrap();
    let loaded = dir.load();
    assert_eq!(loaded.problem, None);
    assert_eq!(loaded.state.splits["echo"].to_string(), "v1=1");
    assert!(loaded.state.catalog.is_empty());
}

/// Rows of a file's content and what the report says of it.
#[test]
fn a_file_that_cannot_be_used_is_set_aside_and_reported() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = StateDir::open(temporary.path()).unwrap();
    dir.save(&sample()).unwrap();
    let file = temporary.path().join(FILE);
    let whole = fs::read_to_string(&file).unwrap();
    let rows = [
        ("", "damaged"),
        (&whole[..whole.len() / 2], "damaged"),
        ("\0\0\0\0", "damaged"),
        (r#"{"splits": {}}"#, "missing field `version`"),
        (r#"{"version": 2, "splits": 7}"#, "format is version 2"),
        (
            r#"{"version": 1, "splits": {"echo": {}}}"#,
            "at least one subset",
        ),
    ];
    for (text, reason) in rows {
        fs::write(&file, text).unwrap();
        let loaded = dir.load();
        assert_eq!(loaded.state, PersistedState::default(), "{text}");
        let problem = loaded.problem.unwrap();
        assert!(problem.contains(reason), "{text}: {problem}");
        let left = names(temporary.path());
        let [aside] = left.as_slice() else {
            panic!("{text}: {left:?}")
        };
        assert!(aside.starts_with("state.json.corrupt-"), "{text}: {aside}");
        assert!(problem.contains(aside), "{text}: {problem}");
        let kept = temporary.path().join(aside);
        assert_eq!(fs::read_to_string(&kept).unwrap(), text);
        fs::remove_file(kept).unwrap();
    }
}

#[test]
fn a_crash_before_the_rename_leaves_the_old_state() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = StateDir::open(temporary.path()).unwrap();
    dir.save(&sample()).unwrap();
    dir.write_new(&PersistedState::default()).unwrap();
    assert_eq!(names(temporary.path()), [FILE, NEW_FILE]);
    assert_eq!(dir.load().state, sample());

    // What the crash left does not stand in the way, whatever its mode.
    fs::set_permissions(
        temporary.path().join(NEW_FILE),
        fs::Permissions::from_mode(0o444),
    )
    .unwrap();
    dir.save(&PersistedState::default()).unwrap();
    assert_eq!(names(temporary.path()), [FILE]);
    assert_eq!(mode(&temporary.path().join(FILE)), 0o600);
    assert_eq!(dir.load().state, PersistedState::default());
}

/// Made to fail in ways that hold for root as well.
#[test]
fn a_disk_that_refuses_is_named_with_what_to_do() {
    let temporary = tempfile::tempdir().unwrap();
    let in_the_way = temporary.path().join("file");
    fs::write(&in_the_way, "").unwrap();
    for path in [in_the_way.clone(), in_the_way.join("below")] {
        let error = StateDir::open(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert!(error.contains("set `state_dir` under [node]"), "{error}");
    }

    let path = temporary.path().join("state");
    let dir = StateDir::open(&path).unwrap();
    dir.save(&sample()).unwrap();
    fs::create_dir(path.join(NEW_FILE)).unwrap();
    let error = dir
        .save(&PersistedState::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains(path.join(FILE).to_str().unwrap()), "{error}");
    assert!(error.contains("make sure that its directory"), "{error}");
    assert_eq!(dir.load().state, sample());
}

/// A file that exists but cannot be read is out of the way of the next save.
#[test]
fn an_unreadable_file_is_set_aside() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = StateDir::open(temporary.path()).unwrap();
    fs::create_dir(temporary.path().join(FILE)).unwrap();
    let loaded = dir.load();
    assert_eq!(loaded.state, PersistedState::default());
    assert!(loaded.problem.unwrap().contains("cannot be read"));
    dir.save(&sample()).unwrap();
    let left = names(temporary.path());
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left[1].starts_with("state.json.corrupt-"), "{left:?}");
}
