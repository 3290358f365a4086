//! What is seen of a request that went through the proxy: one id in the answer, in the access log
//! and at the backend; the log's places and its rotation; the counts, also of what is no HTTP.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use lb_tests::{
    agent::Setup,
    backend::program,
    namespace::Namespace,
    process::{Signal, wait_for},
    topology::Topology,
};
use serde_json::Value;

use crate::scene::{METRICS, PATIENCE};

const SHARED: &str = "10.77.0.1:8080";

/// Asks once; the id in the answer's head, and the one that the backend got.
fn ask(client: &Namespace) -> anyhow::Result<(String, String)> {
    let url = format!("http://{SHARED}/head");
    let words = ["-sS", "-i", "--fail", "--max-time", "5", "-H", "Host: web"];
    let printed = client.tool("curl", &[&words[..], &[&url]].concat())?;
    let (head, body) = printed.split_once("\r\n\r\n").unwrap_or_default();
    let told = head
        .lines()
        .find_map(|line| line.strip_prefix("x-request-id: "));
    let got: Value = serde_json::from_str(body)?;
    let got = got["x-request-id"].as_str().unwrap_or_default();
    Ok((told.unwrap_or_default().trim().to_owned(), got.to_owned()))
}

/// Ids in a log of JSON lines.
fn logged(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines();
    let ids = lines.filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        Some(line["request_id"].as_str()?.to_owned())
    });
    ids.collect()
}

#[test]
fn one_id_everywhere_rotation_and_counts() {
    let topology = Topology::new(1).unwrap();
    let _backend = topology.start_echo(1).unwrap();
    let log = topology.directory().join("access.log");
    let old = topology.directory().join("access.log.1");
    let backend = topology.backend_address(1);
    let config = format!(
        "[proxy]\nlisten = [\"{SHARED}\"]\n\
         access_log = {{ file = \"{}\", format = \"json\" }}\n\n\
         [[service]]\nname = \"web\"\nvip = [\"192.0.2.80:80\"]\nprotocol = \"http\"\n\
         backends = [{{ address = \"{backend}\" }}]\n\n[metrics]\nlisten = \"{METRICS}\"\n",
        log.display()
    );
    let agent = Setup::new(&topology).config(&config).start().unwrap();
    let client = topology.client();
    let mut ids = Vec::new();
    wait_for("a first answer", PATIENCE, || {
        let (told, got) = match ask(client) {
            Ok(ids) => ids,
            Err(_) => return Ok(None),
        };
        assert!(!told.is_empty());
        assert_eq!(told, got, "the backend and the client know other ids");
        ids.push(told);
        Ok(Some(()))
    })
    .unwrap();
    let is_logged = |file: &Path, id: &str| {
        wait_for("the line in the log", PATIENCE, || {
            Ok(logged(file).iter().any(|known| known == id).then_some(()))
        })
        .unwrap();
    };
    is_logged(&log, &ids[0]);

    fs::rename(&log, &old).unwrap();
    agent.process().signal(Signal::Reopen).unwrap();
    wait_for("the new file", PATIENCE, || Ok(log.exists().then_some(()))).unwrap();
    for _ in 0..5 {
        let (told, got) = ask(client).unwrap();
        assert_eq!(told, got);
        is_logged(&log, &told);
        assert!(!logged(&old).contains(&told), "the old file still grows");
        assert!(!ids.contains(&told), "an id comes twice");
        ids.push(told);
    }

    // What is no HTTP is seen, too.
    let url = format!("http://{SHARED}/");
    let words = ["-sS", "-o", "/dev/null", "-w", "%{http_code}"];
    let words = [&words[..], &["-X", "NO METHOD", &url]].concat();
    assert_eq!(client.tool("curl", &words).unwrap(), "400");
    wait_for("the line of it", PATIENCE, || {
        let text = fs::read_to_string(&log)?;
        let mut lines = text.lines().map(serde_json::from_str::<Value>);
        let is_it = |line: Value| {
            let names = ["request_id", "method", "path"];
            line["status"] == 400
                && line["outcome"] == "bad_request"
                && names.iter().all(|name| line.get(name).is_none())
        };
        Ok(lines.any(|line| line.is_ok_and(is_it)).then_some(()))
    })
    .unwrap();

    let page = agent.metrics(METRICS.parse().unwrap()).unwrap();
    let backend = format!("backend=\"{backend}\"");
    let count: f64 = page
        .lines()
        .filter(|line| line.starts_with("lb_proxy_requests_total{service=\"web\""))
        .filter(|line| line.contains(&backend) && line.contains("code=\"200\""))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    assert_eq!(count, ids.len() as f64, "{page}");
    let unread = format!("lb_proxy_requests_unread_total{{listener=\"{SHARED}\",code=\"400\"}} 1");
    assert!(page.lines().any(|line| line == unread), "{page}");
}

/// Standard error takes lines without a file, and beside one if it is to; never standard output.
#[test]
fn the_access_log_on_standard_error() {
    let topology = Topology::new(1).unwrap();
    let _backend = topology.start_echo(1).unwrap();
    let client = topology.client();
    let backend = topology.backend_address(1);
    // (settings of the log; {file}: a place) → on standard error, in the file
    let rows = [
        ("", true, false),
        ("format = \"combined\"", true, false),
        ("file = \"{file}\"", false, true),
        ("file = \"{file}\", stderr = true", true, true),
        (
            "file = \"{file}\", stderr = true, format = \"combined\"",
            true,
            true,
        ),
    ];
    for (number, (settings, on_stderr, in_file)) in rows.into_iter().enumerate() {
        let directory = topology.directory().join(format!("row-{number}"));
        fs::create_dir(&directory).unwrap();
        let [file, errors, wrapper] =
            ["access", "errors", "agent"].map(|name| directory.join(name));
        // Both go to one file otherwise.
        let agent = program("lb-agent").unwrap();
        let script = format!(
            "#!/bin/sh\nexec '{}' \"$@\" 2>>'{}'\n",
            agent.display(),
            errors.display()
        );
        fs::write(&wrapper, script).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        let settings = settings.replace("{file}", &file.display().to_string());
        let config = format!(
            "[proxy]\nlisten = [\"{SHARED}\"]\naccess_log = {{ {settings} }}\n\n\
             [[service]]\nname = \"web\"\nvip = [\"192.0.2.80:80\"]\nprotocol = \"http\"\n\
             backends = [{{ address = \"{backend}\" }}]\n"
        );
        let setup = Setup::new(&topology).binary(&wrapper).config(&config);
        let agent = setup.start().unwrap();
        let mut ids = Vec::new();
        wait_for("answers", PATIENCE, || {
            ids.extend(ask(client).ok().map(|(told, _)| told));
            Ok((ids.len() == 3).then_some(()))
        })
        .unwrap();
        let lines = |file: &Path| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let mut found = Vec::new();
            for line in text.lines() {
                // Of a request that came before the agent could answer it there is a line, too.
                let combined = line.contains("\"GET /head HTTP/1.1\" 200 ");
                let parsed = serde_json::from_str::<Value>(line).ok();
                let id = parsed.and_then(|line| Some(line["request_id"].as_str()?.to_owned()));
                found.extend(id.filter(|id| ids.contains(id)));
                found.extend(combined.then(String::new));
            }
            found
        };
        let is_json = !settings.contains("combined");
        let all = if is_json {
            ids.clone()
        } else {
            vec![String::new(); 3]
        };
        for (place, wanted) in [(&errors, on_stderr), (&file, in_file)] {
            let wanted = if wanted { &all[..] } else { &[] };
            wait_for("the lines", PATIENCE, || {
                Ok((lines(place) == wanted).then_some(()))
            })
            .unwrap_or_else(|error| panic!("{settings}: {error:#}: {:?}", lines(place)));
        }
        // What is to have none has none even at the end.
        agent.stop().unwrap();
        for (place, wanted) in [(&errors, on_stderr), (&file, in_file)] {
            assert_eq!(lines(place).len(), if wanted { 3 } else { 0 }, "{settings}");
        }
        let printed = agent.process().output();
        assert!(ids.iter().all(|id| !printed.contains(id)), "{printed}");
        assert!(!printed.contains("GET /head"), "{printed}");
    }
}
