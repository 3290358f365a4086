//! Captures of real traffic, as others read them.

use std::{fs, process::Command, thread};

use crate::{
    scene::{Scene, VIP, address},
    watching::{from, keep_doing, wait_for_watchers},
};

/// Runs a reader of captures; what it says of each packet.
fn read(program: &str, args: &[&str]) -> Vec<String> {
    let output = Command::new(program).args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout.lines().map(str::to_owned).collect()
}

/// A capture holds the dropped packets and no others, each with its verdict, as two readers that
/// nobody here wrote see it, and does not grow beyond its bounds.
#[test]
fn captures_are_read_by_others() {
    let scene = Scene::listed(&["v1"], "", "");
    let [bad, good] = scene.topology.client_addresses();
    let bad_text = bad.to_string();
    scene.agent.command(&["block", "add", &bad_text]).unwrap();
    let file = scene.topology.directory().join("drops.pcapng");
    let path = file.display().to_string();
    let args = ["capture", "-w", &path, "--count", "5", "--snaplen", "60"];
    let output = thread::scope(|scope| {
        let capture = scope.spawn(|| scene.agent.cli(&args).unwrap());
        wait_for_watchers(&scene, 1.0);
        keep_doing(capture, || {
            let _ = from(&scene, bad).get(address(VIP), "/");
            from(&scene, good).get(address(VIP), "/").unwrap();
        })
    });
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(output.stdout, format!("{path} holds 5 packets\n"));
    let size = fs::metadata(&file).unwrap().len();
    assert!(size < 5 * 200 + 300, "{size} bytes");

    let lines = read("tcpdump", &["-nn", "-r", &path]);
    assert_eq!(lines.len(), 5, "{lines:?}");
    for line in lines {
        assert!(line.contains(&format!(" IP {bad_text}.")), "{line}");
        assert!(line.contains("> 198.51.100.10.80: Flags [S]"), "{line}");
    }
    let fields = [
        "ip.src",
        "tcp.dstport",
        "frame.len",
        "frame.cap_len",
        "frame.interface_name",
        "frame.comment",
    ];
    let mut args = vec!["-r", &path, "-T", "fields", "-E", "separator=|"];
    args.extend(fields.iter().flat_map(|field| ["-e", field]));
    let lines = read("tshark", &args);
    assert_eq!(lines.len(), 5, "{lines:?}");
    for line in lines {
        let expected =
            format!("{bad_text}|80|74|60|to-client|drop blocked: The source is on the block list.");
        assert_eq!(line, expected);
    }

    // Nothing to capture is a file without packets, not a broken one.
    let args = [
        "capture",
        "-w",
        &path,
        "--verdict",
        "ports_exhausted",
        "--seconds",
        "1",
    ];
    let output = scene.agent.cli(&args).unwrap();
    assert_eq!(
        (output.code, output.stdout),
        (0, format!("{path} holds 0 packets\n"))
    );
    assert_eq!(read("tcpdump", &["-nn", "-r", &path]).len(), 0);
    assert_eq!(read("tshark", &["-r", &path]).len(), 0);
}

/// Forwarded packets are captured as they came in, although they left otherwise.
#[test]
fn a_capture_of_forwarded_packets_shows_them_as_they_came() {
    let scene = Scene::listed(&["v1"], "", "");
    let file = scene.topology.directory().join("all.pcapng");
    let path = file.display().to_string();
    let args = [
        "capture",
        "-w",
        &path,
        "--verdict",
        "forward",
        "--proto",
        "tcp",
        "--count",
        "12",
    ];
    let output = thread::scope(|scope| {
        let capture = scope.spawn(|| scene.agent.cli(&args).unwrap());
        wait_for_watchers(&scene, 1.0);
        keep_doing(capture, || {
            scene.client().get(address(VIP), "/").unwrap();
        })
    });
    assert_eq!(output.code, 0, "{output:?}");
    let args = [
        "-r",
        &path,
        "-T",
        "fields",
        "-E",
        "separator=|",
        "-e",
        "ip.dst",
        "-e",
        "frame.comment",
    ];
    let lines = read("tshark", &args);
    assert_eq!(lines.len(), 12);
    for line in lines {
        let request = "198.51.100.10|forward request: From a client to a backend.";
        let reply = "10.77.1.1|forward reply: From a backend to a client.";
        assert!(line == request || line == reply, "{line}");
    }
}
